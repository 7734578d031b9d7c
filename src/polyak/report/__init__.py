"""HTML reports of evaluations, comparisons and searches, each in one file that needs nothing else."""
