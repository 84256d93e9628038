"""Pretrains a backbone: accelerate launch pretrain.py RECIPE [key=value ...]"""

import argparse
import sys

from ssl_lens.cli.console import show_progress
from ssl_lens.engine.signals import InterruptedRun
from ssl_lens.errors import one_line_errors
from ssl_lens.recipe.compose import pretrain
from ssl_lens.recipe.recipe import load_recipe


@one_line_errors
def main() -> int:
    """Runs a recipe; returns the exit status: 0, 2 for bad input, 128 + signal when stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", help="YAML file, such as recipes/quickstart.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as data.path=DIR optim.epochs=10")
    arguments = parser.parse_args()
    show_progress()
    try:
        folder = pretrain(load_recipe(arguments.recipe, arguments.overrides))
    except InterruptedRun as stop:
        print(stop, file=sys.stderr)
        return stop.exit_status
    except KeyboardInterrupt:
        print("stopped at once; what was saved before is whole", file=sys.stderr)
        return 130
    print(f"run written to {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
