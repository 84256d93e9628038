"""A backbone of steerable layers, which folds into plain convolutions for inference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from torch import Tensor

from ssl_lens.backbones.backbone import Features, MapBackbone, taken
from ssl_lens.backbones.options import Options
from ssl_lens.backbones.steerable.fields import fold_into
from ssl_lens.backbones.steerable.groups import expanded_once


class SteerableBackbone(MapBackbone):
    """A backbone whose convolutions are steerable, or, if `folded`, the plain ones that those amount to.

    The folded form is for inference: it has no batch norm and needs no e2cnn. A subclass's constructor takes channels,
    options and `folded`.
    """

    def __init__(self, in_channels: int, embed_dim: int, reduction: int, *, folded: bool) -> None:
        super().__init__(in_channels, embed_dim, reduction)
        self.folded = folded

    @classmethod
    def build(cls, in_channels: int, options: Options, *, folded: bool) -> Self:
        """The constructor, for a caller that does not know which subclass it has."""
        return cls(in_channels, options, folded=folded)  # type: ignore[call-arg, arg-type]

    def config(self) -> dict[str, Any]:
        return {**super().config(), "folded": self.folded}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        in_channels, others = taken(config, "in_channels")
        folded, options = taken(others, "folded")
        return cls.build(in_channels, cls.options_type.from_config(options), folded=folded)

    def each(self, batches: Sequence[Tensor]) -> list[Features]:
        with expanded_once(self):
            return super().each(batches)

    def fold(self) -> MapBackbone:
        if self.folded:
            return self
        plain = self.build(self.in_channels, self.options, folded=True)
        fold_into(plain, self)
        return plain
