"""The command `ssl-lens completion`."""

from __future__ import annotations

import argparse

from ssl_lens.cli.arguments import path_argument

SHELLS = ("bash", "zsh", "fish")
PLACES = {
    "bash": "~/.local/share/bash-completion/completions/ssl-lens",
    "zsh": "~/.zfunc/_ssl-lens, with `fpath+=~/.zfunc; autoload -U compinit; compinit` in ~/.zshrc",
    "fish": "~/.config/fish/completions/ssl-lens.fish",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("shell", choices=SHELLS)
    parser.epilog = "Where its output belongs: " + "; ".join(f"{shell}: {place}" for shell, place in PLACES.items())


def run(options: argparse.Namespace) -> None:
    """Prints a script that completes commands, options and files."""
    import shtab

    from ssl_lens.cli.main import whole_parser

    parser = whole_parser()
    for action in _actions(parser):
        if action.type is path_argument or action.dest in ("recipe", "data"):
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # the attribute that shtab looks for
    print(shtab.complete(parser, options.shell))


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """All arguments of a parser and of its commands."""
    found: list[argparse.Action] = []
    for action in parser._actions:
        found.append(action)
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                found += _actions(command)
    return found
