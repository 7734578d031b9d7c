"""The application to which each command adds itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from .._version import __version__

MERGE, INSPECT, ADAPTERS, DATA, RUNS = (
    "Merge models",
    "Inspect models, methods and recipes",
    "LoRA adapters",
    "Evaluate, search and learn from data",
    "Checkpoints of a training run",
)
_OTHER = "Commands"
_UNCUT = 200  # characters of a command's summary, which is wrapped rather than cut
_SUMMARY = "Merge fine-tuned models, LoRA adapters and checkpoints into one model."


class Group(TyperGroup):
    """A group whose commands are written with dashes or underscores, and listed by section with whole summaries.

    Help is plain text: formatting by rich takes 0.1 s.
    """

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return super().get_command(ctx, cmd_name.replace("_", "-"))

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        commands: list[tuple[str, Any]] = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        for title in (MERGE, ADAPTERS, DATA, RUNS, INSPECT, _OTHER):
            rows = [(n, command.get_short_help_str(_UNCUT)) for n, command in commands if _section(command) == title]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def _section(command: Any) -> str:
    panel = command.rich_help_panel
    return panel if isinstance(panel, str) else _OTHER


class Command(TyperCommand):
    """A command that refuses an option of one value that is given twice, of which the last would count in silence."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _refuse_repeated(self, ctx, args)
        return super().parse_args(ctx, args)


def _refuse_repeated(command: Any, ctx: Any, args: Sequence[str]) -> None:
    _, _, order = command.make_parser(ctx).parse_args(args=list(args))
    times = Counter(param.opts[0] for param in order if param.param_type_name == "option" and _has_one_value(param))
    for option, count in times.items():
        if count > 1:
            message = f"{option} is given {count} times, and {ctx.command_path} takes one. {_remedy(ctx, option)}"
            raise typer.BadParameter(message, ctx=ctx)


def _has_one_value(param: Any) -> bool:
    return not (param.multiple or param.is_flag or param.count)


def _remedy(ctx: Any, option: str) -> str:
    if option == "--task" and "measure" in ctx.command_path:
        return "Measure on each task, and combine the files by `polyak measure merge`."
    return "Give it once."


class App(typer.Typer):
    """Commands of this class unless they say otherwise."""

    def command(self, *args: Any, **kwargs: Any) -> Any:
        return super().command(*args, **{"cls": Command, **kwargs})


app = App(
    name="polyak",
    cls=Group,
    help=_SUMMARY,
    epilog="Exit codes: 0 done; 2 usage; 3 recipe; 4 input; 5 output; 6 verification; 7 task; 130 interrupted.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"polyak {__version__}")
        raise typer.Exit


@app.callback()
def polyak(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Merge fine-tuned models, LoRA adapters and checkpoints into one model."""
