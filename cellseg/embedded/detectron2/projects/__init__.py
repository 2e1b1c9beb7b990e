"""Detectron2's research projects: of them PointRend is here, and what others take from DeepLab."""
