"""The plug-in for napari: readers, writers, and the widgets in the menu Plugins > cellseg.

`napari.yaml` says to napari what there is. Nothing else of cellseg imports this room, and it holds
no logic of its own: what is neither Qt nor napari lies in the rooms below. The library is `napari`,
this package `cellseg.napari`.
"""
