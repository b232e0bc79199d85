"""One tree out of several files: several given, `include`, `extends`."""
