"""The terminal: clean text, output and exit codes, log messages."""
