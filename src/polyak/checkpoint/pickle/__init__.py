"""PyTorch's own files, read without PyTorch and without executing anything that a file names."""
