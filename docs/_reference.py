"""The reference pages of the site: commands, methods and the Python API, derived from the code.

They are written into `docs/reference/` when the site is built, and are not committed.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from _docstrings import cell, escaped, items, markdown
from _methods import NONE, ROOT, by_name, table, values

import polyak
from polyak import cli, methods
from polyak.methods import Method

PUBLIC = (
    "polyak", "polyak.methods", "polyak.testing", "polyak.checkpoint", "polyak.recipe", "polyak.engine", "polyak.tasks",
    "polyak.statistics", "polyak.learn", "polyak.search", "polyak.averaging", "polyak.averaging.live",
    "polyak.adapters", "polyak.training", "polyak.runs", "polyak.errors",
)  # fmt: skip


def write(folder: Path) -> None:
    """Write all reference pages; files whose text is the same are left alone, so that builds stay incremental."""
    folder.mkdir(exist_ok=True)
    texts = {"commands": commands(), "methods": methods_page(), "api": api()}
    texts |= {name.lower(): _of_the_root(f"{name}.md") for name in ("CONTRIBUTING", "CHANGELOG")}
    for name, text in texts.items():
        page = folder / f"{name}.md"
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")


def _of_the_root(name: str) -> str:
    """A page of the repository's root, with its links to other pages."""
    return (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](../")


def commands() -> str:
    """Every command with its arguments and options."""
    root = typer.main.get_command(cli.app)
    parts = ["# Command reference", escaped(root.help or ""), escaped(root.epilog or "")]
    for names, command in _leaves(root, ()):
        parts += _command(names, command)
    return "\n\n".join(parts) + "\n"


def _leaves(command: Any, names: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Commands with the words that call them; groups only where they do something themselves."""
    inner = getattr(command, "commands", {})
    if names and (not inner or command.params):
        yield names, command
    for name in sorted(inner):
        yield from _leaves(inner[name], (*names, name))


def _command(names: tuple[str, ...], command: Any) -> list[str]:
    called = " ".join(("polyak", *names))
    context = command.make_context(called, [], resilient_parsing=True)
    usage = " ".join([called, *command.collect_usage_pieces(context)])
    shown = [p for p in command.params if not getattr(p, "hidden", False)]
    arguments = [[f"`{p.make_metavar(context)}`", _help(p)] for p in shown if p.param_type_name == "argument"]
    options = [[_option(p, context), _help(p), _default(p)] for p in shown if p.param_type_name == "option"]
    parts = [f"## {called}", f"```text\n{usage}\n```", escaped(inspect.cleandoc(command.help or ""))]
    parts += [table(["argument", "meaning"], arguments)] if arguments else []
    return parts + ([table(["option", "meaning", "default"], options)] if options else [])


def _help(parameter: Any) -> str:
    return cell(parameter.help or "")


def _option(parameter: Any, context: Any) -> str:
    metavar = "" if parameter.is_flag else f" {parameter.make_metavar(context)}"
    names = [*parameter.opts, *(f"{name}{metavar}" for name in parameter.secondary_opts)]
    names[len(parameter.opts) - 1] += metavar
    return ", ".join(f"`{name}`" for name in names)


def _default(parameter: Any) -> str:
    default = parameter.default
    if parameter.required:
        return "required"
    if not parameter.show_default or default in (None, False, "", ()) or callable(default):
        return NONE
    return f"`{getattr(default, 'value', default)}`"


def methods_page() -> str:
    """Every method in full: formula, settings, departures, source."""
    notation = "theta_0 is the base, theta_i is model i, and tau_i = theta_i - theta_0 is its task vector."
    methods.load_all()
    return "\n\n".join(["# Method reference", notation, *(part for m in by_name() for part in _method(m))]) + "\n"


def _method(method: Method) -> list[str]:
    docstring = inspect.getdoc(method.fn) or ""
    meanings = items(docstring, "Args")
    rows = [[f"`{s.name}`", values(s), cell(meanings.get(s.name, ""))] for s in method.settings.values()]
    settings = table(["setting", "values", "meaning"], rows) if rows else "None."
    about = markdown(docstring, without=frozenset({"Args"}))
    return [f"## {method.name}", about, f"**Settings**\n\n{settings}", f"**Source**\n\n{escaped(method.source)}"]


def api() -> str:
    """The public names of the package, by module."""
    about = "Names that are not listed here are internal. Deliberate errors are subclasses of `polyak.PolyakError`."
    parts = ["# Python API", about]
    for name in PUBLIC:
        module = importlib.import_module(name)
        parts += [f"## {name}", markdown(inspect.getdoc(module) or "")]
        for public in _public(module):
            parts += _documented(f"{name}.{public}", getattr(module, public))
    return "\n\n".join(parts) + "\n"


def _public(module: Any) -> list[str]:
    """Names that a module defines, or imports under their own name for others (`import x as x`)."""
    names = set[str](getattr(module, "__all__", ()))
    for node in ast.walk(ast.parse(Path(inspect.getfile(module)).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names |= {alias.name for alias in node.names if alias.asname == alias.name}
    names |= {n for n, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__}
    return sorted(n for n in names if not n.startswith("_") and callable(getattr(module, n)))


def _documented(path: str, value: Any) -> list[str]:
    name = path.rpartition(".")[2]
    if _is_elsewhere(path, value):
        return []
    parts = [f"### {path}", f"```python\n{_signature(name, value)}\n```", markdown(inspect.getdoc(value) or "")]
    if inspect.isclass(value):
        parts += [_member(member, each) for member, each in _members(value)]
    return parts


def _is_elsewhere(path: str, value: Any) -> bool:
    """Names of the package itself are documented there only."""
    name = path.rpartition(".")[2]
    return path.count(".") > 1 and name in polyak.__all__ and getattr(polyak, name) is value


def _signature(name: str, value: Any) -> str:
    try:
        text = str(inspect.signature(value))
    except (TypeError, ValueError):
        return name
    text = re.sub(r"\bpolyak\.[\w.]*\.(\w+)|'|~", r"\1", text)
    return name + (text if len(name) + len(text) <= 100 else _on_lines(text))


def _on_lines(text: str) -> str:
    """One parameter per line: commas inside of brackets and words do not count."""
    depth, lines, start = 0, list[str](), 1
    for i, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if depth == 0 or (depth == 1 and letter == ","):
            lines.append(text[start:i].strip())
            start = i + 1
        if depth == 0:
            return "(\n" + "".join(f"    {line},\n" for line in lines if line) + text[i:]
    return text


def _members(cls: type) -> Iterator[tuple[str, Any]]:
    for name, value in vars(cls).items():
        function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if not name.startswith("_") and inspect.isfunction(function) and inspect.getdoc(function):
            yield name, value


def _member(name: str, value: Any) -> str:
    function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
    called = f"`{name}`" if isinstance(value, property) else f"`{_signature(name, function)}`".replace("\n    ", " ")
    called = re.sub(r"\((?:self|cls),? ?", "(", called)
    text = markdown(inspect.getdoc(function) or "")
    return f"{called.replace(chr(10), '')}\n\n: " + text.replace("\n", "\n  ")
