"""Experts on handwritten digits, merged through files and the command line."""
