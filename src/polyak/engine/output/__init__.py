"""The folder that a merge writes: shards, completed chunks, provenance and the model card."""
