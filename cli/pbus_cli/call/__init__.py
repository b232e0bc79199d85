"""One call of a client, run to its end: what every command needs."""
