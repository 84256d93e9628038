"""The command `ssl-lens pretrain`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_lens.cli.console import add_recipe_arguments

if TYPE_CHECKING:
    from ssl_lens.recipe.recipe import Recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    add_recipe_arguments(parser)
    parser.epilog = (
        "Exit status: 0; 2 for input that cannot be used; 128 + signal when stopped. A stopped run goes on with the "
        "same command and run.resume=auto."
    )


def run(options: argparse.Namespace) -> int:
    """Pretrains, and prints the folder of the run."""
    from ssl_lens.engine.trainer import InterruptedRun
    from ssl_lens.recipe.recipe import load_recipe

    try:
        folder = _pretrain(load_recipe(options.recipe, options.overrides))
    except InterruptedRun as stop:
        print(stop, file=sys.stderr)
        return stop.exit_status
    except KeyboardInterrupt:
        print("stopped at once; what was saved before is whole", file=sys.stderr)
        return 130
    print(f"run written to {folder}")
    return 0


def _pretrain(recipe: Recipe) -> Path:
    from ssl_lens.engine.trainer import Pretraining

    return Pretraining(recipe).run()
