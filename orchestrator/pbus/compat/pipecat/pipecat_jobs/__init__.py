"""Jobs of Pipecat workers: those between processes, and all as they are listed."""
