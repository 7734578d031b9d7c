"""Cross-lingual transfer of multilingual-e5-small: parts of speech and intents, every way to get one model."""
