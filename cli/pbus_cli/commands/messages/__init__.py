"""Verbs of messages and jobs."""
