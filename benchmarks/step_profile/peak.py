"""What the device can do at most: a plain matrix product."""

from __future__ import annotations

import statistics

import torch

from step_profile.clock import Clock


class Peak:
    """FLOP/s of a square matrix product, measured again between steps, so that a busy machine slows both.

    Args:
        dtype: of the products in a step.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.clock = Clock(device)
        self.side, self.repeats = (8192, 10) if device.type == "cuda" else (1024, 2)
        generator = torch.Generator().manual_seed(0)
        self.factors = [torch.randn(self.side, self.side, generator=generator).to(device, dtype) for _ in range(2)]
        self._seconds: list[float] = []
        self._product()  # a first one does not count

    def measure(self) -> None:
        """One more time."""
        self._seconds.append(self._product())

    @property
    def flops_per_s(self) -> float:
        """The median."""
        return 2 * self.side**3 * self.repeats / statistics.median(self._seconds)

    def _product(self) -> float:
        start = self.clock.stamp()
        for _ in range(self.repeats):
            torch.mm(*self.factors)
        return self.clock.seconds(start, self.clock.stamp())
