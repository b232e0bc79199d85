"""Background tasks, backoff, waiting, event handlers, forks: used by every layer above."""
