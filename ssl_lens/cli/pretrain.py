"""The command `ssl-lens pretrain`."""

from __future__ import annotations

import argparse
import sys

from ssl_lens import launcher
from ssl_lens.cli.arguments import add_recipe_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    add_recipe_arguments(parser)
    parser.epilog = (
        "Exit status: 0; 2 for input that cannot be used; 128 + signal when stopped. A stopped run goes on with the "
        "same command and run.resume=auto. The run's status.json says the same under launchers, which know only 1."
    )


def run(options: argparse.Namespace) -> int:
    """Pretrains, and prints the folder of the run."""
    from ssl_lens.engine.signals import InterruptedRun
    from ssl_lens.recipe.compose import pretrain
    from ssl_lens.recipe.recipe import load_recipe

    try:
        folder = pretrain(load_recipe(options.recipe, options.overrides))
    except InterruptedRun as stop:
        if launcher.speaks_first(str(stop)):
            print(stop, file=sys.stderr)
        return stop.exit_status
    except KeyboardInterrupt:
        print("stopped at once; what was saved before is whole", file=sys.stderr)
        return 130
    if launcher.rank() == 0:
        print(f"run written to {folder}")
    return 0
