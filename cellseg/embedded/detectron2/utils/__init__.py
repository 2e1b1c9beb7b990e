"""Helpers that the rest of the engine shares."""
