"""Verbs of workers."""
