"""Replay the merges with an older commit and with this checkout, and say which wrote other bytes.

    python tests/replay/compare.py REVISION

Instead of a revision, a file that replay.py wrote does as well: then only this checkout is replayed.
The older source is unpacked into tests/replay/.work, where it stays with its compiled kernels for the next comparison.
Both trees run this checkout's replay.py under the same Python.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent
_ROOT = _HERE.parents[1]
_WORK = _HERE / ".work"


def main() -> int:
    """0 if both trees write the same bytes, else 1."""
    if len(sys.argv) != 2 or not sys.argv[1]:
        print("give the commit to compare with: make replay BASE=main", file=sys.stderr)
        return 2
    old = _older(sys.argv[1])
    new = _replay(_ROOT / "src", _WORK / "checkout.json")
    rows = differences(old, new)
    print(_table(rows) if rows else f"{len(new['cases'])} cases: the same bytes as {sys.argv[1]}")
    return 1 if rows or new["failed"] else 0


def _older(asked: str) -> dict[str, Any]:
    """What a file holds, or what a commit's source writes."""
    if asked.endswith(".json"):
        return json.loads(Path(asked).read_text())
    revision = _git("rev-parse", "--verify", f"{asked}^{{commit}}").decode().strip()[:12]
    return _replay(_unpacked(revision), _WORK / f"{revision}.json")


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Case, file, and what became of it, for everything that is not the same in both."""
    rows: list[tuple[str, str, str]] = []
    for name in sorted({*old["cases"], *new["cases"], *old["failed"], *new["failed"]}):
        before, after = old["cases"].get(name), new["cases"].get(name)
        if name in old["failed"] and name in new["failed"]:
            continue
        if before is None or after is None:
            rows.append((name, "", f"{_state(name, old)} before, {_state(name, new)} now"))
            continue
        for file in sorted({*before, *after}):
            if before.get(file) != after.get(file):
                change = "new" if file not in before else "gone" if file not in after else "differs"
                rows.append((name, file, change))
    return rows


def _state(name: str, replayed: Mapping[str, Any]) -> str:
    return "failed" if name in replayed["failed"] else "merged" if name in replayed["cases"] else "no case"


def _unpacked(revision: str) -> Path:
    """The folder with a commit's source, unpacked unless it is there."""
    folder = _WORK / revision
    if not (folder / "src").is_dir():
        with tarfile.open(fileobj=io.BytesIO(_git("archive", revision, "src"))) as archive:
            archive.extractall(folder, filter="data")
    return folder / "src"


def _replay(source: Path, out: Path) -> dict[str, Any]:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.unlink(missing_ok=True)
    print(f"replaying with {source}", flush=True)
    environment = os.environ | {"PYTHONPATH": str(source), "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, str(_HERE / "replay.py"), str(out)], env=environment, cwd=_ROOT, check=False)
    if not out.exists():
        raise SystemExit(f"replaying with {source} ended without a result")
    replayed = json.loads(out.read_text())
    if not Path(replayed["about"]["polyak"]).is_relative_to(source):
        raise SystemExit(f"{replayed['about']['polyak']} was imported instead of {source}")
    return replayed


def _table(rows: list[tuple[str, str, str]]) -> str:
    header = ("case", "file", "")
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(2)]
    lines = [f"{case:{widths[0]}}  {file:{widths[1]}}  {change}" for case, file, change in (header, *rows)]
    cases = len({case for case, _, _ in rows})
    return "\n".join(line.rstrip() for line in (*lines, "", f"{cases} cases differ"))


def _git(*words: str) -> bytes:
    return subprocess.run(["git", *words], cwd=_ROOT, check=True, stdout=subprocess.PIPE).stdout


if __name__ == "__main__":
    sys.exit(main())
