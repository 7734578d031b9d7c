"""The consecutive blocks of a module, and their inputs."""

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
    """A batch between two blocks.

    Attributes:
        hidden: Input of the next block.
        others: Other arguments of each block: positional ones after the first, and keywords.
        mask: True at positions that are not padding, (n, positions), or None.
        identities: One per example.
    """

    hidden: Tensor
    others: list[Arguments]
    mask: Tensor | None
    identities: list[bytes]

    def through(self, block: nn.Module, i: int) -> Tensor:
        """The output of a block for the arguments of block `i`."""
        args, kwargs = self.others[i]
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
    containers = dict[str, nn.Module]((name, part) for name, part in module.named_modules() if _holds_blocks(part))
    if path:
        if path not in containers:
            paths = ", ".join(map(repr, containers)) or "none"
            raise TaskError(f"the module has no blocks at {path!r}. A ModuleList or Sequential is needed; it has: "
                            f"{paths}.")  # fmt: skip
        return path, list(containers[path].children())
    for kind in (nn.ModuleList, nn.Sequential):
        if names := [name for name, part in containers.items() if isinstance(part, kind)]:
            largest = max(names, key=lambda name: sum(parameter.numel() for parameter in containers[name].parameters()))
            return largest, list(containers[largest].children())
    raise TaskError("the module has no consecutive blocks: neither a ModuleList nor a Sequential.")


def _holds_blocks(part: nn.Module) -> bool:
    return isinstance(part, nn.ModuleList | nn.Sequential) and any(True for _ in part.parameters())


def passage_of(run: Callable[[], object], blocks: list[nn.Module], mask: Tensor | None, ids: list[bytes]) -> Passage:
    """Run a module once, and record the arguments of each block.

    Raises:
        TaskError: a block is not called exactly once, or its input is not the output of the block before.
    """
    hidden: list[Tensor] = []
    others: list[Arguments] = []
    outputs: list[Tensor] = []

    def enter(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        first, rest, named = _divided(args, kwargs)
        if blocks[len(hidden) % len(blocks)] is not block or (outputs and not _same(outputs[-1], first)):
            raise TaskError(
                "the blocks are not consecutive: each must be called once, with the output of the block before."
            )
        hidden.append(first)
        others.append((rest, named))

    def leave(block: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        outputs.append(_first(output))

    with _hooked(blocks, enter, leave):
        run()
    if len(hidden) != len(blocks):
        raise TaskError(f"the {len(blocks)} blocks were called {len(hidden)} times; each must be called once.")
    return Passage(hidden[0], others, mask, ids)


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
    """The first argument, and the others without caches, which would grow when a block runs again."""
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


def _same(first: Tensor, second: Tensor) -> bool:
    return first is second or (first.shape == second.shape and bool((first == second).all()))
