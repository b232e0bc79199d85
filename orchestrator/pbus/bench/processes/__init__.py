"""The processes of a benchmark and how they are told what to do."""
