"""Time-lapses: which frames belong together, and which of their cells are the same."""
