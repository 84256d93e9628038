"""The command `ssl-lens`: one door, a module of this folder behind each command."""

from __future__ import annotations

import argparse
import difflib
import importlib
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType

from ssl_lens.cli.console import show_progress
from ssl_lens.errors import InputError, one_line_errors
from ssl_lens.extras import what_to_install

PROGRAM = "ssl-lens"
GROUPS = {  # of the overview: command, which is its module's name too, and what it does
    "Images": {
        "data": "check a set of images, or pack it into one file",
        "simulate": "simulate lenses without, with cold and with axion dark matter",
        "views": "draw what a recipe's network will see of the images",
    },
    "Training": {
        "pretrain": "train a backbone on images without labels",
        "finetune": "train a whole network on labelled images",
        "runs": "list runs: how far they are, and how to resume them",
    },
    "Using a backbone": {
        "evaluate": "measure frozen features with few labels",
        "embed": "write the features of a folder of images to a table",
        "predict": "write the classes of a folder of images, with scores, to a table",
        "export": "turn a run into a backbone that loads with torch and timm alone",
        "fit": "fit a backbone's preprocessing to other images, without labels",
        "align": "give a backbone a linear map in which renderings of a lens agree",
    },
    "Looking things up": {
        "recipes": "list the recipes that ship, show or copy one",
        "models": "measure the networks there are to choose from",
        "completion": "print what makes your shell complete these commands",
    },
}
COMMANDS = {name: help_line for group in GROUPS.values() for name, help_line in group.items()}


@one_line_errors
def main(arguments: Sequence[str] | None = None) -> int | None:
    """Runs one of the commands; returns the exit status if it is not 0."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words:
        print(overview(), file=sys.stderr)
        return 2
    name, rest = words[0], words[1:]
    if name in ("-h", "--help"):
        print(overview())
        return 0
    if name == "--version":
        from importlib.metadata import version

        print(f"{PROGRAM} {version('ssl_lens')}")
        return 0
    if name not in COMMANDS:
        raise InputError(f"unknown command {name}; {_nearest(name)}")
    try:
        module = command_module(name)
        options = _parse(_parser(name, module), rest)
        show_progress()
        return module.run(options)
    except ModuleNotFoundError as error:
        missing = what_to_install(error, name)
        if missing is None:
            raise
        raise InputError(missing) from error


def command_module(name: str) -> ModuleType:
    """The module of a command, with `add_arguments(parser)` and `run(options)`."""
    return importlib.import_module(f"ssl_lens.cli.{name}")


def overview() -> str:
    """All commands by group, for `ssl-lens --help`."""
    return "\n".join(_overview())


def whole_parser() -> argparse.ArgumentParser:
    """One parser of all commands, which imports all of their modules."""
    parser = argparse.ArgumentParser(prog=PROGRAM)
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(metavar="COMMAND")
    for name, help_line in COMMANDS.items():
        command_module(name).add_arguments(commands.add_parser(name, help=help_line))
    return parser


def _overview() -> Iterator[str]:
    yield f"usage: {PROGRAM} COMMAND ..."
    yield ""
    yield "Pretrain on unlabelled images of strong lenses, measure with few labels, use the frozen backbone."
    width = max(map(len, COMMANDS))
    for title, commands in GROUPS.items():
        yield f"\n{title}:"
        for name, help_line in commands.items():
            yield f"  {name:<{width}}  {help_line}"
    yield f"\n`{PROGRAM} COMMAND --help` explains a command, `{PROGRAM} --version` prints the version."


def _parser(name: str, module: ModuleType) -> argparse.ArgumentParser:
    text = COMMANDS[name]
    parser = argparse.ArgumentParser(prog=f"{PROGRAM} {name}", description=f"{text[0].upper()}{text[1:]}.")
    module.add_arguments(parser)
    return parser


def _parse(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    """Arguments and options in any order, such as `--out FILE` before `key=value`."""
    if not {"-h", "--help"}.isdisjoint(words):  # which the other way of parsing shows without its arguments' defaults
        return parser.parse_args(words)
    try:
        return parser.parse_intermixed_args(words)
    except TypeError:  # what argparse says of a command that has commands of its own
        return parser.parse_args(words)


def _nearest(name: str) -> str:
    close = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.5)
    return f"the nearest is {close[0]}" if close else f"there are {', '.join(COMMANDS)}"


if __name__ == "__main__":
    sys.exit(main())
