"""The command `ssl-lens finetune`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ssl_lens import launcher
from ssl_lens.cli.arguments import (
    SET_NAMES,
    add_set,
    flags,
    given_set,
    output_folder,
    path_argument,
    positive,
    text_argument,
)
from ssl_lens.errors import arguments_named

DEFAULT_FOLDER = Path("runs/supervised")  # for results of what has no folder of its own


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        type=text_argument,
        help="where to start: fresh weights of a network (its name, such as resnet18, or a recipe), or the backbone "
        "of a run or an export (its folder)",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="changes to the recipe, for a name too, such as data.bin=2 data.stretch=asinh model.patch_size=2",
    )
    add_set(parser)
    parser.add_argument(
        "--save",
        metavar="FOLDER",
        type=path_argument,
        help="write the network trained on most images, of several seeds that with the lowest validation loss, as an "
        "export with its head",
    )
    parser.add_argument(
        "--scratch", action="store_true", help="of a run or export, also train the same network from random weights"
    )
    parser.add_argument(
        "--pooling", metavar="POOLING", help="as for evaluate (default: the backbone's own; from scratch view)"
    )
    parser.add_argument(
        "--epochs",
        type=positive,
        help="default: about 500 steps in 5 to 20 epochs from a probe, 3,000 in 10 to 100 from scratch",
    )
    parser.add_argument("--batch-size", type=positive, default=64, help="over all processes (default %(default)s)")
    parser.add_argument(
        "--lr", type=float, help="highest learning rate (default: 1e-4 from the probe of a backbone, 5e-4 from scratch)"
    )
    parser.add_argument("--weight-decay", type=float, default=0.05, help="default %(default)s")
    parser.add_argument(
        "--augmentation",
        choices=("continuous", "right-angle", "none"),
        help="rotations, with flips (default: right-angle from a probe, continuous from scratch; with --target-column "
        "none, as only you know which number, such as a mass, stays when the image is turned)",
    )
    parser.add_argument(
        "--patience",
        type=positive,
        default=20,
        help="from scratch, stop after so many epochs without a lower validation loss (default %(default)s)",
    )
    parser.add_argument("--bf16", action="store_true", help="train the network in bfloat16")


@arguments_named(SET_NAMES | flags("pooling", "epochs", "batch_size", "lr", "weight_decay", "augmentation", "patience"))
def run(options: argparse.Namespace) -> None:
    """Trains and judges; one process prints the summary and what was written."""
    from ssl_lens.evaluation.probes.trainer import Settings
    from ssl_lens.evaluation.verbs import finetune

    names = ("pooling", "epochs", "batch_size", "lr", "weight_decay", "patience", "augmentation", "bf16")
    name = "regression" if options.target_columns else "finetune"
    found = finetune(
        options.model,
        options.overrides,
        settings=Settings(**{name: getattr(options, name) for name in names}),
        scratch=options.scratch,
        out=output_folder(options, options.model, name, DEFAULT_FOLDER),
        **given_set(options),
    )
    if launcher.rank() == 0:
        print(found.summary())
        print("\n".join(str(path) for path in found.files))
