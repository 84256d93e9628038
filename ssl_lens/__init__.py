"""Self-supervised pretraining for images of strong gravitational lenses.

The verbs of the command line, in Python. `simulate` and `read_images` give images; `pretrain` and `finetune` train;
`load_backbone`, `export`, `fit`, `align`, `embed`, `predict` and `evaluate` use and measure what was trained.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssl_lens.api import Run as Run
    from ssl_lens.api import pretrain as pretrain
    from ssl_lens.api import read_images as read_images
    from ssl_lens.api import simulate as simulate
    from ssl_lens.evaluation.verbs import evaluate as evaluate
    from ssl_lens.evaluation.verbs import finetune as finetune
    from ssl_lens.recipe.fit import fit as fit
    from ssl_lens.representation.align import align as align
    from ssl_lens.representation.embedding import embed as embed
    from ssl_lens.representation.export import export as export
    from ssl_lens.representation.frozen import load_backbone as load_backbone
    from ssl_lens.representation.prediction import predict as predict

    __version__: str

_HOMES = {  # of each name: imported when it is first asked for, so that `import ssl_lens` alone stays quick
    "Run": "ssl_lens.api",
    "align": "ssl_lens.representation.align",
    "embed": "ssl_lens.representation.embedding",
    "evaluate": "ssl_lens.evaluation.verbs",
    "export": "ssl_lens.representation.export",
    "finetune": "ssl_lens.evaluation.verbs",
    "fit": "ssl_lens.recipe.fit",
    "load_backbone": "ssl_lens.representation.frozen",
    "predict": "ssl_lens.representation.prediction",
    "pretrain": "ssl_lens.api",
    "read_images": "ssl_lens.api",
    "simulate": "ssl_lens.api",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("ssl_lens")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
