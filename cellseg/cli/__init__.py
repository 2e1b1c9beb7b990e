"""The commands; tools/*.py are doors to the same functions."""
