"""Checks of the code that a topology names, by reading: nothing is imported."""
