"""Worker processes forked from a warm parent, the zygote, instead of started by exec."""
