"""Workers that are any program: messages on its stdin, one line of JSON each, and back on its stdout."""
