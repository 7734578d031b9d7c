"""Commands that need neither data nor modules import no library that takes seconds to import."""

from __future__ import annotations

import json
import subprocess
import sys

from ..adapters.made import write_adapter
from ..docs.models import write_all

HEAVY = ("torch", "transformers", "tokenizers", "huggingface_hub", "optuna")
COMMANDS = [
    "plan recipe.yaml", "merge recipe.yaml merged", "merge maths code --method slerp --out between", "verify merged",
    "inspect base", "diff base maths", "methods", "methods ties", "schema", "learn list", "lora merge a b both",
    "lora extract base maths extracted --rank 2", "lora bake base extracted baked", "average run mean", "--help",
]  # fmt: skip
EACH = f"""
import json, sys
from polyak.cli import main
imported = {{}}
for command in sys.argv[1:]:
    sys.argv = ["polyak", *command.split()]
    try:
        main()
    except SystemExit as ended:
        modules = [name for name in {HEAVY} if name in sys.modules and name not in sum(imported.values(), [])]
        imported[command] = [f"exit {{ended.code}}"] if ended.code else modules
print(json.dumps(imported), file=sys.stderr)
"""


def test_what_needs_no_module_imports_no_torch_and_its_like(tmp_path):
    write_all(tmp_path)
    for folder in ("base", "maths", "code"):  # a type of which no table knows anything
        config = tmp_path / folder / "config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), "model_type": "of our own"}))
    for seed, name in enumerate("ab"):
        write_adapter(tmp_path / name, seed)
    (tmp_path / "recipe.yaml").write_text("base: base\nmodels: [maths, code]\nmethod: ties\n")
    done = subprocess.run(
        [sys.executable, "-c", EACH, *COMMANDS], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stderr.splitlines()[-1]) == {command: [] for command in COMMANDS}
