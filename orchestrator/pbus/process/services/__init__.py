"""Services of a project: the embedded broker and the guard."""
