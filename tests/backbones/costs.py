"""What the networks cost, as docs/networks.md says; a network that is not there yet is taken for a small one."""

import re
from pathlib import Path
from typing import NamedTuple

TABLE = (Path(__file__).parents[2] / "docs" / "networks.md").read_text(encoding="utf-8")


class Cost(NamedTuple):
    """Of a network on one channel: parameters with its head, GFLOPs of a 64 px image."""

    parameters: int
    gflops: float

    @property
    def small(self) -> bool:
        return self.parameters < 3e6 and self.gflops < 0.6

    @property
    def large(self) -> bool:
        return self.parameters > 4e7 or self.gflops > 1


COSTS = {
    name: Cost(int(parameters.replace(",", "")), float(gflops))
    for name, parameters, gflops in re.findall(r"^\| (\w+) +\| ([\d,]+) +\| ([\d.]+) +\|", TABLE, flags=re.MULTILINE)
}


def cost(name: str) -> Cost:
    return COSTS.get(name, Cost(0, 0.0))
