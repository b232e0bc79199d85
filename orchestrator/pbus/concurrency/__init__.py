"""Tasks that outlive errors, backoff, event handlers, forks: what every layer above needs."""
