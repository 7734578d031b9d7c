"""Commands derived from declarations: one per declaration, with an option per setting."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from ._app import App, Group

if TYPE_CHECKING:
    from ..declare import Setting


class DerivedGroup(Group, ABC):
    """A group with the commands of a registry, which is read only when the group is called."""

    @abstractmethod
    def declared(self) -> Mapping[str, Callable[[], Callable[..., None]]]:
        """A function per name that makes the function of the command."""

    def list_commands(self, ctx: Any) -> list[str]:
        derived = [name.replace("_", "-") for name in self.declared()]
        return [*derived, *super().list_commands(ctx)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if (written := super().get_command(ctx, cmd_name)) is not None:
            return written
        make = self.declared().get(cmd_name.replace("-", "_"))
        return None if make is None else _as_command(cmd_name, make())


def with_settings(
    command: Callable[..., None], fn: Callable[..., Any], settings: Mapping[str, Setting], *, owner: str
) -> Callable[..., None]:
    """Give a command an option per setting in place of its `**settings`; help is that of the declared function.

    Args:
        command: The function of the command.
        fn: The declared function.
        settings: Its settings.
        owner: Name of the declaration in messages.

    Raises:
        DeclarationError: a setting has the name of one of the command's own options.
    """
    from ..declare import argument_help, summary_of
    from ..errors import DeclarationError

    hints = get_type_hints(command, include_extras=True)
    own = [
        parameter.replace(annotation=hints[parameter.name])
        for parameter in inspect.signature(command).parameters.values()
        if parameter.kind is not parameter.VAR_KEYWORD
    ]
    if taken := {parameter.name for parameter in own} & settings.keys():
        raise DeclarationError(f"{owner}: {sorted(taken)[0]!r} is an option of the command; rename the setting.")
    described = argument_help(fn)
    options = [_option(setting, described.get(name, "")) for name, setting in settings.items()]
    signature = inspect.Signature([_as_keyword(parameter) for parameter in (*own, *options)])
    command.__signature__ = signature  # pyright: ignore[reportFunctionMemberAccess]
    command.__annotations__ = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    command.__doc__ = summary_of(fn)
    return command


def _option(setting: Setting, text: str) -> inspect.Parameter:
    from ..declare import REQUIRED

    kind: Any = Literal[setting.kind] if isinstance(setting.kind, tuple) else setting.kind
    limits: dict[str, Any] = {}
    if setting.range is not None and not setting.range.above:  # an open range is checked where values are bound
        as_number = int if setting.kind is int else float
        low, high = (None if math.isinf(end) else as_number(end) for end in (setting.range.low, setting.range.high))
        limits = {"min": low, "max": high}
    annotation = Annotated[kind, typer.Option(help=text, **limits)]
    default = inspect.Parameter.empty if setting.default is REQUIRED else setting.default
    return inspect.Parameter(setting.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _as_keyword(parameter: inspect.Parameter) -> inspect.Parameter:
    return parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)


def _as_command(name: str, function: Callable[..., None]) -> Any:
    application = App(rich_markup_mode=None, pretty_exceptions_enable=False)
    application.callback()(lambda: None)  # a group even of one command
    application.command(name)(function)
    group: Any = typer.main.get_command(application)
    return group.commands[name]
