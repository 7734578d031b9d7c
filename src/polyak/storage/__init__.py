"""Durable files and folders: atomic writes, locked staging folders with a journal, digests."""
