"""Run the snippets of a page, in order, in the current folder: `python snippets.py PAGE`.

- `bash` and `python` blocks run; the python blocks of a page share their names. Their status must be 0. Blocks of
  plain `polyak` commands run in this process, through the command's entry point: starting it each time is slow.
- A block after `<!-- file: NAME -->` is written to that file, and not run.
- A `text` block right after one that ran is what it prints; `...` stands for anything.
- `sh` blocks, and other blocks without a name, are left alone.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"<!-- file: (\S+) -->\n$")


@dataclass(frozen=True)
class Snippet:
    """A fenced block.

    Attributes:
        language: The first word after the fence.
        text: What is inside.
        line: Where it begins in its page.
        file: The file that it is written to, if any.
        follows: Whether nothing but empty lines lies between it and the block before.
    """

    language: str
    text: str
    line: int
    file: str | None = None
    follows: bool = False


def snippets(page: str) -> Iterator[Snippet]:
    """The fenced blocks of a page."""
    end = 0
    for found in _FENCE.finditer(page):
        before = page[: found.start()]
        named = _NAMED.search(before)
        follows = end > 0 and not page[end : found.start()].strip()
        yield Snippet(found[1], found[2], before.count("\n") + 1, named[1] if named else None, follows)
        end = found.end()


def run_page(path: Path) -> int:
    """Run everything in the current folder; the number of blocks that ran.

    Raises:
        AssertionError: a block printed something else than the page says.
        Exception: whatever a block raised.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    ran, printed = 0, None
    for snippet in snippets(path.read_text(encoding="utf-8")):
        if snippet.file is not None:
            target = Path(snippet.file)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(snippet.text, encoding="utf-8")
        elif snippet.language in ("bash", "python"):
            printed = _run(snippet, names, path.name)
            ran += 1
            continue
        elif snippet.language == "text" and snippet.follows and printed is not None:
            assert_prints(printed, snippet.text, f"{path.name}, line {snippet.line}")
        printed = None
    return ran


def _run(snippet: Snippet, names: dict[str, Any], page: str) -> str:
    place = f"{page}, line {snippet.line}"
    lines = snippet.text.splitlines()
    out = io.StringIO()
    with redirect_stdout(out):
        if snippet.language == "python":
            exec(compile("\n" * snippet.line + snippet.text, place, "exec"), names)
        elif all(re.fullmatch(r"polyak [^|&<>$*;]+", line) for line in lines):
            for line in lines:
                _polyak(shlex.split(line), place)
        else:
            print(_bash(snippet.text, place))
    return out.getvalue()


def _polyak(command: list[str], place: str) -> None:
    from polyak.cli import main

    sys.argv = command
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, f"{place}: {shlex.join(command)} ended with {ended.code}"


def _bash(text: str, place: str) -> str:
    environment = os.environ | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])}
    command = ["bash", "-euo", "pipefail", "-c", text]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, f"{place} ended with {done.returncode}:\n{done.stderr}"
    return done.stdout


def assert_prints(printed: str, wanted: str, place: str) -> None:
    """The same text, apart from spaces at the end of lines and what `...` stands for."""
    printed, wanted = ("\n".join(line.rstrip() for line in text.strip().splitlines()) for text in (printed, wanted))
    pattern = ".*".join(re.escape(part) for part in wanted.split("..."))
    if not re.fullmatch(pattern, printed, re.DOTALL):
        raise AssertionError(f"{place} says\n\n{wanted}\n\nbut this is printed:\n\n{printed}")


if __name__ == "__main__":
    print(f"{run_page(Path(sys.argv[1]))} blocks ran")
