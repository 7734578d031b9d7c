"""Eight fine-tunes of a real sentence encoder, merged by every method that polyak has for it, in one table."""
