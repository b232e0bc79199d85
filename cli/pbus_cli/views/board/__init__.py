"""The interactive display: what each of its panes shows, as pure values."""
