"""From a registered data set to the tensors that a model trains on."""
