"""Counts and times of messages and jobs, for each edge of a process."""
