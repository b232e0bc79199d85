"""Text to values: YAML, scalars, sizes, variables, env files."""
