"""What a backbone is: images in, one vector per view and one per region out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from torch import Tensor, nn

from ssl_lens.errors import InputError


class Features(NamedTuple):
    """What every backbone returns.

    Shapes: view [B, D], regions [B, N, D] in row-major order of the last map (N = height * width).
    """

    view: Tensor
    regions: Tensor


class Backbone(nn.Module, ABC):
    """Turns images into features, at every size its architecture accepts.

    A subclass gives `stages` and keeps its constructor's arguments in `_config`; `forward` follows from the last map,
    whose pixels are the regions and whose mean is the view. A network with a class token overrides it: the token is the
    view. One that does not take every size overrides `map_size` and `accepted_sizes`.

    Attributes:
        in_channels: channels C of the images.
        embed_dim: width D of the features, the number of channels of the last map.
        reduction: distance of two pixels of the last map, px of the image.
    """

    _config: dict[str, Any]

    def __init__(self, in_channels: int, embed_dim: int, reduction: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.embed_dim = embed_dim
        self.reduction = reduction

    @abstractmethod
    def stages(self, images: Tensor) -> list[Tensor]:
        """Maps [B, C_i, h_i, w_i] of images [B, C, H, W], finest first; the last after the final norm."""

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the last map for images of this size in pixels.

        Raises: InputError if the architecture cannot take this size.
        """
        if not height or not width:
            raise InputError(f"image size {height}x{width} px is empty; use 1 px or more")
        return -(-height // self.reduction), -(-width // self.reduction)

    @property
    def accepted_sizes(self) -> str:
        """The image sizes that `map_size` takes, in a few words: "any", "multiples of 4 px", "224x224 px"."""
        return "any"

    def config(self) -> dict[str, Any]:
        """The constructor's arguments, ready for JSON: `type(self)(**self.config())` is the same architecture."""
        return dict(self._config)

    def forward(self, images: Tensor) -> Features:
        """Features of images [B, C, H, W].

        Raises: InputError if the channels or the size are not what the backbone takes.
        """
        regions = self.stages(images)[-1].flatten(2).transpose(1, 2)
        return Features(view=regions.mean(dim=1), regions=regions)

    def head(self, num_outputs: int) -> nn.Module:
        """What the architecture's authors put on top, with fresh weights: view features [B, D] to [B, num_outputs]."""
        return nn.Linear(self.embed_dim, num_outputs)

    def fold(self) -> Backbone:
        """The same network for inference in plain torch modules; itself where there is nothing to fold."""
        return self

    def check_images(self, images: Tensor) -> None:
        """Raises InputError unless images are [B, in_channels, H, W] of a size this backbone takes."""
        if images.ndim != 4 or images.shape[1] != self.in_channels:
            raise InputError(
                f"images have shape {list(images.shape)}; the backbone needs [B, {self.in_channels}, H, W]: "
                "change the images or build the backbone with that many in_channels"
            )
        self.map_size(images.shape[2], images.shape[3])
