"""Strict reading of plain data: YAML and JSON, every key known, every value checked where it stands."""
