"""How to reach a Redis: endpoint, Sentinel, cluster redirects."""
