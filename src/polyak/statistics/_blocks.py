"""The blocks of a module that follow one another, and what goes into them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor, nn

from ..errors import TaskError

Arguments: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass
class Passage:
    """A batch on its way through the blocks.

    Attributes:
        hidden: Input of the next block.
        beside: Other arguments of each block: positional ones after the first, and keywords.
        mask: True at positions that are not padding, (n, positions), or None.
        identities: One per example.
    """

    hidden: Tensor
    beside: list[Arguments]
    mask: Tensor | None
    identities: list[bytes]

    def through(self, block: nn.Module, i: int) -> Tensor:
        """The output of a block for the arguments of block `i`."""
        args, kwargs = self.beside[i]
        return _first(block(self.hidden, *args, **kwargs))


def blocks_of(module: nn.Module, path: str = "") -> tuple[str, list[nn.Module]]:
    """The path of the container of a module's blocks, and the blocks.

    Args:
        module: The module.
        path: Their container, such as `bert.encoder.layer` (default: the `ModuleList` with the most parameters, or
            without one the `Sequential`).

    Raises:
        TaskError: there is no such container.
    """
    found = dict[str, nn.Module]((name, part) for name, part in module.named_modules() if _holds_blocks(part))
    if path:
        if path not in found:
            known = ", ".join(map(repr, found)) or "none"
            raise TaskError(f"the module has no blocks at {path!r}. A ModuleList or Sequential is needed; there are: "
                            f"{known}.")  # fmt: skip
        return path, list(found[path].children())
    for kind in (nn.ModuleList, nn.Sequential):
        if some := [name for name, part in found.items() if isinstance(part, kind)]:
            largest = max(some, key=lambda name: sum(one.numel() for one in found[name].parameters()))
            return largest, list(found[largest].children())
    raise TaskError("the module has no blocks that follow one another: neither a ModuleList nor a Sequential.")


def _holds_blocks(part: nn.Module) -> bool:
    return isinstance(part, nn.ModuleList | nn.Sequential) and any(True for _ in part.parameters())


def passage_of(run: Callable[[], object], blocks: list[nn.Module], mask: Tensor | None, ids: list[bytes]) -> Passage:
    """Run a module once, and take down what each block is given.

    Raises:
        TaskError: a block is not called once, or what goes into it is not what came out of the one before.
    """
    hidden: list[Tensor] = []
    beside: list[Arguments] = []
    outputs: list[Tensor] = []

    def enter(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        first, rest, named = _divided(args, kwargs)
        if blocks[len(hidden) % len(blocks)] is not block or (outputs and not _same(outputs[-1], first)):
            raise TaskError("the blocks do not follow one another, each called once with what came out of the last.")
        hidden.append(first)
        beside.append((rest, named))

    def leave(block: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        outputs.append(_first(output))

    with _hooked(blocks, enter, leave):
        run()
    if len(hidden) != len(blocks):
        raise TaskError(f"of {len(blocks)} blocks, {len(hidden)} calls were made; each must be called once.")
    return Passage(hidden[0], beside, mask, ids)


@contextmanager
def _hooked(blocks: list[nn.Module], enter: Any, leave: Any) -> Generator[None]:
    hooks = [block.register_forward_pre_hook(enter, with_kwargs=True) for block in blocks]
    hooks += [block.register_forward_hook(leave) for block in blocks]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _divided(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Tensor, tuple[Any, ...], dict[str, Any]]:
    """The first argument, and the others without caches, which would grow when a block is run again."""
    named = {name: value for name, value in kwargs.items() if not _is_cache(value)}
    rest = tuple(None if _is_cache(value) else value for value in args[1:])
    first = args[0] if args else named.pop(next(iter(named), ""), None)
    if not isinstance(first, Tensor):
        raise TaskError(f"a block's first input must be a tensor; it is a {type(first).__name__}.")
    return first.detach(), rest, named


def _is_cache(value: Any) -> bool:
    return "Cache" in type(value).__name__


def _first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple | list) else output


def _same(one: Tensor, other: Tensor) -> bool:
    return one is other or (one.shape == other.shape and bool((one == other).all()))
