"""OS processes: supervise, spawn, guard, log."""
