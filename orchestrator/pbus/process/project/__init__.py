"""A project on disk: its state, record, lock, logs; finding projects."""
