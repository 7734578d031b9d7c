"""The training recipes of polyak, one file each."""
