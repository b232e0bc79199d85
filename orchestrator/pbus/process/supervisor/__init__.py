"""The supervisor: starts, watches, restarts and stops worker processes."""
