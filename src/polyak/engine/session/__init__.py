"""Caches between merges of the same models, for search and other repeated merging."""
