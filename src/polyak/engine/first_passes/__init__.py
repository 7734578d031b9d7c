"""Answers to first passes: thresholds, quantiles, sums and Gram matrices, streamed over whole tensors."""
