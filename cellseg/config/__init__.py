"""Settings of cellseg: every key below CELLSEG. Imports neither torch nor rooms above."""
