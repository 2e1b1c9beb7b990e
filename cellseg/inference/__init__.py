"""From images to cells with a trained model: the predictor, test-time augmentation, lists of files.

Images are read and prepared as in training, and cells come out as `CellInstances`.
"""
