"""Look at models without merging: verify provenance, compare two checkpoints, probe samples of tensors."""
