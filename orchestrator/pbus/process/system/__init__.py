"""The operating system: spawning, process groups, output, signals, files."""
