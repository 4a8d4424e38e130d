"""Which weights may move: one selector a file."""
