"""Recipes in mergekit's dialect, read with that tool's meaning."""
