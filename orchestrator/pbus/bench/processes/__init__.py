"""The processes of a benchmark: starting, configuring and ending them."""
