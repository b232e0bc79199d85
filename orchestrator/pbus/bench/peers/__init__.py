"""Other systems that do the same work (extra `bench-peers`): their servers and clients."""
