"""Files of the result other than tensors: config, tokenizer files, chat template."""
