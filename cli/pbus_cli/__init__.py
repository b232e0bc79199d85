"""The command `pbus`: flags in, one library call, a view out, an exit code."""
