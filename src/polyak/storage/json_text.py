"""Human-readable JSON."""

from __future__ import annotations

import json


def as_json(data: object) -> str:
    """Indented JSON with a final newline, as Hugging Face writes it."""
    return _indented(data, "\n") + "\n"


def _indented(data: object, margin: str) -> str:
    """The output of `json.dumps` with `indent=2`, which is pure Python; here the C encoder writes the flat parts."""
    inner = margin + "  "
    match data:
        case dict() if data and any(isinstance(value, dict | list | tuple) for value in data.values()):
            items = [f"{json.dumps(str(k), ensure_ascii=False)}: {_indented(v, inner)}" for k, v in data.items()]
            return f"{{{inner}{f',{inner}'.join(items)}{margin}}}"
        case dict() | list() | tuple() if data and not any(isinstance(value, dict | list | tuple) for value in data):
            text = json.dumps(data, ensure_ascii=False, separators=(f",{inner}", ": "))
            return f"{text[0]}{inner}{text[1:-1]}{margin}{text[-1]}"
        case _:
            return json.dumps(data, indent=2, ensure_ascii=False).replace("\n", margin)
