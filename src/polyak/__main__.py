"""`python -m polyak` is `polyak`."""

from .cli import main

main()
