"""Self-supervised pretraining for strong-gravitational-lens images."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

__version__ = version("ssl_lens")
__all__ = ["__version__", "load_backbone"]


def __getattr__(name: str) -> Any:
    """`ssl_lens.load_backbone`, imported when it is asked for: `import ssl_lens` alone stays quick."""
    if name == "load_backbone":
        from ssl_lens.representation.frozen import load_backbone

        return load_backbone
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
