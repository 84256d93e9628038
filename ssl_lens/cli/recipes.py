"""The command `ssl-lens recipes`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ssl_lens.cli.arguments import path_argument
from ssl_lens.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("name", metavar="NAME", nargs="?", help="print this one (default: a line on each)")
    parser.add_argument(
        "--copy",
        metavar="FILE",
        nargs="?",
        type=path_argument,
        const=Path(),
        help="write it to a file of your own to change (default: NAME.yaml in the working folder)",
    )


def run(options: argparse.Namespace) -> None:
    """Lists the recipes that ship, prints one, or copies one."""
    from ssl_lens.recipe.library import recipe_names, recipe_path, summary

    if options.name is None:
        if options.copy is not None:
            raise InputError("--copy needs the NAME of a recipe before it; `ssl-lens recipes` lists them")
        width = max(map(len, recipe_names()))
        for name in recipe_names():
            print(f"{name:<{width}}  {summary(name)}")
        return
    text = recipe_path(options.name).read_text(encoding="utf-8")
    if options.copy is None:
        print(text, end="")
        return
    target = Path(f"{Path(options.name).stem}.yaml") if options.copy == Path() else options.copy
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InputError(f"{target} exists already; give another file with --copy FILE") from None
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror}; give another file with --copy FILE") from error
    print(f"{target}; pretrain with: ssl-lens pretrain {target} data.path=DIR")
