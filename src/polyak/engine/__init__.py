"""The engine: carries out plans, in bounded memory, with the same bytes for any number of workers.

Four ways in: `run` merges into a folder, `run_in_memory` returns arrays, `stream` hands on tensor after tensor, and a
`Session` merges many plans of the same models. Everything else here is what these take and return.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
