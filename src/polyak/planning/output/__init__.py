"""Files that accompany the merged tensors: config, tokenizer files, chat template."""
