"""Merge small models in memory by some methods, and print digests of the results: `python merges.py linear,ties`.

With the argument `levels`, print the kernel levels that the processor supports; with `usable`, print those for which
the installation has a library, as words.
"""

from __future__ import annotations

import hashlib
import json
import sys

import ml_dtypes
import numpy as np

import polyak
from polyak.native import supported_levels, usable_levels

DTYPES = (np.float32, np.float16, ml_dtypes.bfloat16)


def main() -> None:
    """Print JSON, or words."""
    argument = sys.argv[1]
    if argument == "usable":
        print(*usable_levels())
        return
    print(json.dumps(supported_levels() if argument == "levels" else digests(argument.split(","))))


def digests(methods: list[str]) -> dict[str, str]:
    """The digest of each method's result per dtype, for two models and a base."""
    made: dict[str, str] = {}
    for dtype in DTYPES:
        rng = np.random.default_rng(0)
        *models, base = [
            {"a": rng.standard_normal((64, 300)).astype(dtype), "b": rng.standard_normal(5).astype(dtype)}
            for _ in range(3)
        ]
        for method in methods:
            merged = polyak.merge_state_dicts(models, method=method, base=base)
            data = b"".join(merged[name].tobytes() for name in sorted(merged))
            made[f"{method} {np.dtype(dtype).name}"] = hashlib.sha256(data).hexdigest()
    return made


if __name__ == "__main__":
    main()
