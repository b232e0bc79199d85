"""Messages of a client: where they go, and those of others as they pass."""
