"""Changes of a running project: what differs from the file, applied to the workers that run."""
