"""Where a training step's time and memory go: by phase of the step, by part of the network, by operator.

    python benchmarks/profile.py RECIPE --out FOLDER [key=value ...]

Composes the recipe and runs its own training loop for a few steps: some that only warm up, some that are timed, and one
in which every operator and every tensor saved for backward is counted. Prints tables; writes FOLDER/profile.json and
FOLDER/profile.png. On a CPU `optim.batch_size` is 8 unless it is given; saved bytes per image do not depend on it.
"""

import os
import sys
from importlib.machinery import PathFinder

if __name__ == "__main__":
    from step_profile.command import main

    sys.exit(main())
else:  # a benchmark next to this file imports cProfile, which wants the standard library's module of this name
    PathFinder.find_spec("profile", [os.path.dirname(os.__file__)]).loader.exec_module(sys.modules[__name__])
