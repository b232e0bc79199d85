"""Sequence diagrams of what happened."""
