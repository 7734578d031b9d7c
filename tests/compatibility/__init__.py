"""Situations of public bug reports, rebuilt with small inputs: each test is one row of docs/compatibility.md."""
