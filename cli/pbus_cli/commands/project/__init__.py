"""Verbs of a whole project."""
