"""Lua in the broker, and the client that calls it."""
