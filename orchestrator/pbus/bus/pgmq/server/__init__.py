"""How to reach a Postgres: address, session, schema, a connection that heals."""
