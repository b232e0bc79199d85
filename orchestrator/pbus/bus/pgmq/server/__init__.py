"""Reaching a Postgres: address, session, schema, a connection that heals."""
