"""The backbone that comes with the package: python docs/make_lens_small.py runs/lenses_minute

Exports the run to ssl_lens/weights/lens_small, its weights in half precision: half the size, features as good.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import ssl_lens
from ssl_lens.representation.description import WEIGHTS
from ssl_lens.representation.export import ONNX

OUT = Path(__file__).parents[1] / "ssl_lens" / "weights" / "lens_small"


def main() -> None:
    """Exports, then rounds the matrices; what standardises stays as it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    ssl_lens.export(parser.parse_args().run, OUT)
    (OUT / ONNX).unlink(missing_ok=True)
    weights = load_file(OUT / WEIGHTS)
    rounded = {name: value.to(torch.float16) if value.ndim == 2 else value for name, value in weights.items()}
    save_file(rounded, OUT / WEIGHTS)


if __name__ == "__main__":
    main()
