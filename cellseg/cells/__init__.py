"""Cells and what can be done with them on numpy arrays: no torch, no engine, no files."""
