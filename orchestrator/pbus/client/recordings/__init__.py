"""Recordings of the messages of a project, and their replay."""
