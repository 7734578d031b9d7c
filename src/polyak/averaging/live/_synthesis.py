"""Post-hoc averages synthesised from the state files of several steps."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...checkpoint import SafetensorsFile
from ...errors import Mismatch, SettingError
from ...modules import read_tensor
from ..power_function import Profile, Synthesis, exponent_of, synthesise
from ._arithmetic import combined
from ._state import read_facts

if TYPE_CHECKING:
    from torch import Tensor


def synthesised(
    states: Sequence[str | Path], width: float, *, name: str = "posthoc_ema"
) -> tuple[dict[str, Tensor], Synthesis]:
    """The average of a width at the last step of some state files, from all the averages that they hold.

    One tensor of each file is in memory at a time, besides the result.

    Args:
        states: Files of `Averager.save_state`, of one run, written at several steps.
        width: Relative to the number of updates in the last file.
        name: The average, one of the kind `posthoc_ema`.

    Returns:
        The tensors by name, in the dtype in which the averages are kept; and the coefficients with their correlation.

    Raises:
        CheckpointError: a file is missing, damaged, or not a state.
        Mismatch: a state has no such average, or its own settings differ from those of the others.
        SettingError: no file, or no profile has this width.
    """
    if not states:
        raise SettingError("no state files to synthesise an average from.")
    with ExitStack() as stack:
        files = [stack.enter_context(SafetensorsFile(Path(path))) for path in states]
        facts = [_facts(file, name) for file in files]
        for file, each in zip(files, facts, strict=True):
            if each["settings"] != facts[0]["settings"]:
                raise Mismatch(
                    f"{file.label} is of another run than {files[0].label}: the settings of {name!r} differ."
                )
        settings = facts[0]["settings"]
        exponents = [exponent_of(settings["narrow"]), exponent_of(settings["wide"])]
        sources = [(file, slot) for file in files for slot in range(2)]
        profiles = [Profile(exponent, each["updates"]) for each in facts for exponent in exponents]
        synthesis = synthesise(profiles, width)
        names = read_facts(files[-1])["shapes"]
        return {tensor: _combined(sources, synthesis.coefficients, name, tensor) for tensor in names}, synthesis


def _facts(file: SafetensorsFile, name: str) -> dict[str, Any]:
    facts = read_facts(file)["averages"].get(name)
    if facts is None or facts["kind"] != "posthoc_ema" or not facts["updates"]:
        raise Mismatch(f"{file.label} has no updated average {name!r} of the kind 'posthoc_ema'.")
    return facts


def _combined(
    sources: Sequence[tuple[SafetensorsFile, int]], coefficients: Sequence[float], name: str, tensor: str
) -> Tensor:
    parts = [read_tensor(file, f"{name}/{slot}/{tensor}") for file, slot in sources]
    return combined(list(zip(parts, coefficients, strict=True))).to(parts[0].dtype)
