"""Data sets: declared in YAML, registered with Detectron2, split, cached; synthetic cells."""
