"""The policies of a worker: order, readiness, health, restarts, stopping."""
