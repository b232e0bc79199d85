"""Messages at most once: coalescing, order, flow control, loss; over any broker's transport."""
