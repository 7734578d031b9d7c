"""Reader of mergekit's recipes, which keeps their meaning."""
