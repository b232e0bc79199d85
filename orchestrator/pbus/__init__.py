"""The worker bus and the processes on it."""
