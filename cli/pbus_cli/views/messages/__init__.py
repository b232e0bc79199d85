"""Messages: bytes in them, and requests with their answers."""
