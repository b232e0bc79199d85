"""The endpoint that Prometheus and probes of a container platform ask."""
