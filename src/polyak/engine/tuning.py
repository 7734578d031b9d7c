"""Sizes that the engine works with, in one place; read them by attribute, so that a test can shrink one everywhere.

`BLOCK` is part of the contract on bytes: sums are reduced block by block, so another value gives other last digits.
All others change only how much memory a merge takes and how fast it is.
"""

from __future__ import annotations

# Contract on bytes
BLOCK = 64 * 1024  # entries that a reduction adds up before partial sums are added to one another

# Units of work
CHUNK = 4 * 2**20  # entries; a multiple of a digest's leaf for every dtype, so that chunks are hashed independently
GROUP = 2**20  # entries of small tensors that form one group of steps
GROUP_STEPS = 256  # the most steps of such a group, and the most small tasks that are scheduled as one
LONG_ROW = 2**20  # entries; a tensor that is a single row of more is processed in blocks, not held as one row

# Caches of the processor
TILE = 128 * 1024  # the most entries of a tile
TILE_NBYTES = 2_700_000  # tiles of all models and the result: beyond the L2 cache, calls cost less than misses
READ_NBYTES = 4 * 2**20  # bytes that are read at a time, of all sources together
FUSED_READ_NBYTES = 3 * 2**19  # ... by fused kernels: about the L2 cache, so that bytes are hashed and merged there
ENCODED_NBYTES = 2**20  # bytes of the result that are written and hashed at a time
SYNC_NBYTES = 64 * 2**20  # written bytes that are sent to the disk together, while the merge goes on

# Search for a top-k threshold
COLLECTED = 256 * 1024  # entries that are collected without sampling first; the most that one chunk may collect
COLLECTED_TOTAL = 4 * 2**20  # entries of one model that may be collected in all
BINS = 4096
REPEATS = 4  # average number of occurrences of a value from which on counting in bins beats collecting
STANDARD_ERRORS = 3.5  # half the width of the bracket; a miss (1 in 2,000) costs another sweep, never the answer
SAMPLE_RUN = 2048  # consecutive entries of a sample
SAMPLE_RUNS = (16, 512)  # the fewest (a small tensor) and the most (a whole model)

# Caches between merges
CACHED_ANSWERS = 4  # answers that are kept per first pass and tensor: categorical settings are revisited
