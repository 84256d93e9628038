"""The command: one recipe, one profile."""

from __future__ import annotations

import argparse
from pathlib import Path

from ssl_lens.errors import one_line_errors


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(prog="profile.py", description="Where a training step's time and memory go.")
    parser.add_argument("recipe", metavar="RECIPE", help="a file, or the name of a shipped one")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to it, such as optim.batch_size=8")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where profile.json and .png go")
    parser.add_argument("--steps", type=int, default=5, help="that are timed (default %(default)s)")
    options = parser.parse_intermixed_args()
    from step_profile.measure import profile  # takes seconds to import
    from step_profile.report import text, write

    measured = profile(options.recipe, options.overrides, steps=options.steps)
    write(measured, options.out)
    print(text(measured))
    print(f"written: {options.out}/profile.json, profile.png")
