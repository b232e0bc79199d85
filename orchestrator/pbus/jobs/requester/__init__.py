"""The requester's side of jobs."""
