"""Verbs that need no running project."""
