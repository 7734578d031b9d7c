"""Tokenizers, and checkpoints whose embedding tables are rearranged row by row."""
