"""Probes: whether a process is ready, and whether it is healthy."""
