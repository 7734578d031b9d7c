"""The front end: Numba makes bitcode of every kernel variant, for no processor in particular."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

# Not yet optimised, so that nothing is decided for the machine that builds.
ENVIRONMENT = {"NUMBA_OPT": "0", "NUMBA_CPU_NAME": "generic"}


def bitcode_of(folder: Path, group: int) -> Path:
    """The file of a group's bitcode."""
    return folder / f"group-{group}.bc"


def index_of(folder: Path, group: int) -> Path:
    """The file that names a group's variants: a line with symbol and result letters each."""
    return folder / f"group-{group}.txt"


def translate(folder: Path, group: int, groups: int, only: str) -> None:
    """Write the bitcode and the index of one group of variants; neighbours in the list share most of their code."""
    from polyak.kernels.variants import variants

    listed = [variant for variant in variants() if re.search(only, variant[0].identity)]
    mine = listed[len(listed) * group // groups : len(listed) * (group + 1) // groups]
    if index_of(folder, group).exists():
        return
    begun, lines, module = time.process_time(), list[str](), None
    for number, (kernel, key) in enumerate(mine, 1):
        symbol, result, translated = _translated(kernel, key)
        lines.append(f"{symbol} {result}\n")
        module = _joined(module, translated)
        print(f"front end, group {group + 1} of {groups}: {number} of {len(mine)}: {kernel.identity}", flush=True)
    _finish(module, folder, group, lines)
    print(f"front end, group {group + 1} of {groups}: {time.process_time() - begun:.1f} s of CPU", flush=True)


def _translated(kernel: Any, key: Any) -> tuple[str, str, Any]:
    from polyak.native import symbol_of
    from polyak.native._build import module_of

    symbol = symbol_of(kernel.identity, key)
    return symbol, *module_of(kernel, key, symbol, shared=True)


def _joined(module: Any, other: Any) -> Any:
    if module is None:
        return other
    module.link_in(other)
    return module


def _finish(module: Any, folder: Path, group: int, lines: list[str]) -> None:
    symbols = {line.split(" ")[0] for line in lines}
    for value in (*module.functions, *module.global_variables):
        if not value.is_declaration and value.name not in symbols:
            value.linkage = "internal"
    bitcode_of(folder, group).write_bytes(module.as_bitcode())
    index_of(folder, group).write_text("".join(lines), encoding="utf-8")  # last: it says that both are whole
