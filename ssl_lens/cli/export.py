"""The command `ssl-lens export`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from ssl_lens.cli.arguments import flags, path_argument
from ssl_lens.errors import arguments_named
from ssl_lens.representation.pooling_names import Pooling

if TYPE_CHECKING:
    from ssl_lens.representation.export import ExportCheck


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("run", metavar="RUN", type=path_argument, help="folder of a run, or of an export")
    parser.add_argument("out", metavar="OUT", type=path_argument, help="folder to write")
    parser.add_argument("--image-size", metavar="PX", type=int, help="side of raw images for ONNX; default: the run's")
    parser.add_argument("--pooling", choices=get_args(Pooling), help="what `features` are (default: stage_rings)")


@arguments_named(flags("image_size", "pooling"))
def run(options: argparse.Namespace) -> None:
    """Exports, and prints how much the features differ."""
    from ssl_lens.representation.export import export

    check = export(options.run, options.out, image_size=options.image_size, pooling=options.pooling)
    say_differences(options.out, check)


def say_differences(out: Path, check: ExportCheck) -> None:
    """Prints where an export is, and how far its features are from those of its source."""
    from ssl_lens.representation.export import TOLERANCE

    print(f"{out}: features differ from the source's by {check.weights:.1e} (at most {TOLERANCE:.0e})")
    if check.onnx is None:
        print("ONNX: written, not checked; `pip install onnxruntime` to have it checked")
    else:
        print(f"ONNX: features differ from the source's by {check.onnx:.1e} (at most {TOLERANCE:.0e})")
