"""Reports of the supervisor: its events, states on the bus, reports of stopped workers."""
