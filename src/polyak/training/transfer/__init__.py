"""Parts of the recipe `cross_lingual`: languages, runs, strategies, few-shot training, the report."""
