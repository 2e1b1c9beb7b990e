"""Look at a dataset before a model does: measures, findings, pictures, a cleaned copy."""
