"""Writing of YAML that any library reads back as the same data."""

from __future__ import annotations

from typing import Any

import yaml

from .scalars import resolve_scalar

_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_TAG = "tag:yaml.org,2002:"


def write_yaml(data: object) -> str:
    """Write YAML that reads back as the same data, here and with any YAML 1.1 or 1.2 library."""
    return yaml.dump(data, Dumper=_Writer, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)


class _Writer(_DUMPER):
    pass


def _write_text(writer: Any, text: str) -> Any:
    plain = text.isprintable() and _is_text(text)
    return writer.represent_scalar(f"{_TAG}str", text, style=None if plain else '"')


def _is_text(unquoted: str) -> bool:
    try:
        return resolve_scalar(unquoted) == unquoted
    except ValueError:  # an integer of too many digits
        return False


def _write_float(writer: Any, number: float) -> Any:
    text = repr(number)
    # YAML 1.1 reads 1e-05 as text.
    return writer.represent_scalar(f"{_TAG}float", text if "." in text else text.replace("e", ".0e"))


_Writer.add_representer(str, _write_text)
_Writer.add_representer(float, _write_float)
