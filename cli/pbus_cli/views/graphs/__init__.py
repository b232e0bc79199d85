"""The graph of a project as text and pictures."""
