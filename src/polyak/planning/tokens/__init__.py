"""Models with different tokenizers: detection, embedding tables, and one vocabulary for the merged model."""
