"""What a document says that can be held against the code: its commands, keys and files."""

import re

_BEGINNINGS = ("ssl-lens ", "python ", "accelerate launch ")


def commands(text: str) -> list[str]:
    """The indented commands, without the comments behind them."""
    lines = re.findall(r"^ {4}(\S.*?)(?: {2,}#.*)?$", text, flags=re.MULTILINE)
    return [line for line in lines if line.startswith(_BEGINNINGS)]


def keys(text: str) -> set[str]:
    """Keys of recipes, such as `data.path`."""
    found = set(re.findall(r"\b(?:data|views|model|loss|optim|run)\.[a-z][a-z_.]*[a-z]", text))
    return {key for key in found if not key.endswith((".py", ".yaml", ".png", ".md"))}


def files(text: str) -> set[str]:
    """Files of the repository, from its root."""
    return set(re.findall(r"\b(?:recipes|eval|benchmarks|docs)/[\w./]+\.(?:py|yaml|txt|md)\b", text))
