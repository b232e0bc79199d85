"""Verbs as tools of the Model Context Protocol: `pbus mcp`."""
