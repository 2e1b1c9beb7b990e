"""Data sets: declared in YAML, split, cached and registered with Detectron2; their true cells.

datasets/README.md describes declarations, docs/splits.md splits and cache.
"""
