"""Runs of a project and the events of its workers, and the choice among what is kept."""
