"""Benchmarks of messages that the broker stores."""
