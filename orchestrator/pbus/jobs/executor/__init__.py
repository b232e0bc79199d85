"""The worker's side of jobs."""
