"""The interactive display: Textual, in a thread of its own."""
