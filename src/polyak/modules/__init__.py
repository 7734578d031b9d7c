"""Live torch modules, and the mapping between their parameters and the tensors of a checkpoint."""
