"""Look at a dataset before a model does: figures, findings, pictures, a cleaned copy."""
