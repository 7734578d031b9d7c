"""The documentation site: `make docs`."""

import sys
from importlib.util import find_spec
from pathlib import Path

from sphinx.ext.autodoc.mock import mock

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import _reference  # noqa: E402

from polyak import __version__  # noqa: E402

project = "polyak"
copyright = "the authors of polyak"
release = __version__
extensions = ["myst_parser", "sphinx_copybutton"]
exclude_patterns = []
html_theme = "furo"
html_title = f"polyak {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_theme_options = {"top_of_page_buttons": []}
myst_heading_anchors = 4
myst_enable_extensions = ["deflist"]
nitpicky = True
copybutton_exclude = ".linenos, .gp, .go"

# The reference imports every room; heavy packages need not be installed for that.
HEAVY = ("torch", "transformers", "optuna", "cmaes", "safetensors", "scipy")
with mock([name for name in HEAVY if find_spec(name) is None]):
    _reference.write(HERE / "reference")


def setup(app):
    """Globs in the navigation stand for pages that need not exist; Sphinx warns of one that matches nothing."""
    app.connect("source-read", _without_empty_globs)


def _without_empty_globs(app, docname, source):
    if docname == app.config.root_doc:
        lines = source[0].splitlines()
        source[0] = "\n".join(line for line in lines if not line.endswith("*") or list(HERE.glob(f"{line.strip()}.md")))
