"""Runnable examples: `python -m examples.digits.demo`, from the root of the repository."""
