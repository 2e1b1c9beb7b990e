"""From a registered data set to the tensors that a model trains on: mapper, masks, augmentations.

Cells stay label planes on the way: an image costs the same whatever the number of its cells.
"""
