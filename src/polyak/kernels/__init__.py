"""Compiled loops over tiles that live in cache.

They come in the wheel, or are compiled once per machine, and run without Python's lock.
"""
