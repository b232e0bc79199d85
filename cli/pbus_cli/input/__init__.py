"""Arguments of commands: options, completion, JSON, names."""
