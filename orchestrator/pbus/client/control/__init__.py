"""Control of workers: requests to their supervisors, plans of changes, and the results."""
