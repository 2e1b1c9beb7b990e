"""The ground floor: cells as label images, windows, runs and outlines, how they are compared,
selected and drawn. Works on numpy arrays only, without torch and without an engine.
"""
