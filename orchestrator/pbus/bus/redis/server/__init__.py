"""Reaching a Redis: endpoint, Sentinel, cluster redirects."""
