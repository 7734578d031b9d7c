"""Fine-tunes of a real sentence encoder, merged through files and the command line."""
