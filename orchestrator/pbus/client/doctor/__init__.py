"""`pbus doctor`: what may keep a project from working, each with what to do."""
