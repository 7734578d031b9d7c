"""A LoRA run of a small language model, and averages of its checkpoints, through files and the command line."""
