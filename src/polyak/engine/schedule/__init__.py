"""Stages of work and the threads that run them."""
