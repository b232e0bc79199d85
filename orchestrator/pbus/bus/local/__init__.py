"""Delivery within one process: router, mailboxes, lanes."""
