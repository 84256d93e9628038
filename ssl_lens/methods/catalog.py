"""The methods that there are, by name."""

from __future__ import annotations

from ssl_lens.methods.dino import DINO
from ssl_lens.methods.method import Method

METHODS: dict[str, type[Method]] = {
    "dino": DINO,
}
