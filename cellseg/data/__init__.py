"""From files on disk to the tensors a model takes."""
