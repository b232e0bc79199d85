"""What draws, prints and follows in threads of its own, so that no terminal can hold a supervisor up."""
