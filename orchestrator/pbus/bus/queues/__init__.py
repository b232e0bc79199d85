"""Messages at least once: producer and consumer over any broker's queue store."""
