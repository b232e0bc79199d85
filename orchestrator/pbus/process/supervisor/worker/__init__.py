"""One worker process: its target and status, restarts, shutdown, resource usage."""
