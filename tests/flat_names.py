"""A module whose parameters have the reference's names."""

from torch import nn


class Named(nn.Module):
    """Parameters by a flat name each, as torch itself forbids dots in them."""

    def __init__(self, named: dict[str, nn.Parameter]) -> None:
        super().__init__()
        self.named = named

    def named_parameters(self, *_, **__):
        return iter(self.named.items())
