"""Self-supervised pretraining for strong-gravitational-lens images.

The verbs of the command line, in Python: `pretrain`, `simulate`, `read_images`, `load_backbone`, `export`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssl_lens.api import Run, export, load_backbone, pretrain, read_images, simulate

    __version__: str

__all__ = ["Run", "__version__", "export", "load_backbone", "pretrain", "read_images", "simulate"]


def __getattr__(name: str) -> Any:
    """Each is imported when it is first asked for: `import ssl_lens` alone stays quick."""
    if name == "__version__":
        from importlib.metadata import version

        return version("ssl_lens")
    if name in __all__:
        return getattr(importlib.import_module("ssl_lens.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
