"""What a backbone is: images in, one vector per view and one per region out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

from torch import Tensor, nn

from ssl_lens.backbones.options import Options
from ssl_lens.errors import InputError


class Features(NamedTuple):
    """What every backbone returns.

    Attributes:
        view: [B, D].
        regions: [B, N, D]; those of a map in row-major order, N = height * width.
        positions: where the regions lie, (x, y) in px of the image, [N, 2] or [B, N, 2]; None for the pixels of a map,
            whose places follow from their order.
    """

    view: Tensor
    regions: Tensor
    positions: Tensor | None = None


class SizeRule(NamedTuple):
    """How an image is cut so that a network takes it.

    Attributes:
        multiple: of px, that height and width must be.
        largest: height and width in px; None for any.
    """

    multiple: int = 1
    largest: tuple[int, int] | None = None


class Encoder(nn.Module, ABC):
    """Turns images into features: one vector of the whole view and one for each of its regions.

    Regions need not be the pixels of a map: an encoder to a cloud of latent points says where they lie with
    `Features.positions`.

    Attributes:
        in_channels: channels C of the images.
        embed_dim: width D of the features.
    """

    def __init__(self, in_channels: int, embed_dim: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.embed_dim = embed_dim

    @abstractmethod
    def forward(self, images: Tensor) -> Features:
        """Features of images [B, C, H, W].

        Raises: InputError if the channels or the size are not what the encoder takes.
        """

    def each(self, batches: Sequence[Tensor]) -> list[Features]:
        """Features of several batches of images, such as the sizes of one step's crops, by the same weights."""
        return [self(images) for images in batches]

    def head(self, num_outputs: int) -> nn.Module:
        """What the architecture's authors put on top, with fresh weights: view features [B, D] to [B, num_outputs]."""
        return nn.Linear(self.embed_dim, num_outputs)


class MapBackbone(Encoder):
    """An encoder whose regions are the pixels of a map, the last of several.

    A subclass names the class of its options, keeps those it was built from in `options`, and gives `stages`; `forward`
    follows from the last map, whose pixels are the regions and whose mean is the view. A network with a class token
    overrides it: the token is the view. One that does not take every size overrides `map_size`, `accepted_sizes` and
    `size_rule`.

    Attributes:
        embed_dim: also the number of channels of the last map.
        reduction: distance of two pixels of the last map, px of the image.
        options: what the network was built from.
    """

    options_type: ClassVar[type[Options]]
    options: Options

    def __init__(self, in_channels: int, embed_dim: int, reduction: int) -> None:
        super().__init__(in_channels, embed_dim)
        self.reduction = reduction

    @abstractmethod
    def stages(self, images: Tensor) -> list[Tensor]:
        """Maps [B, C_i, h_i, w_i] of images [B, C, H, W], finest first; the last after the final norm."""

    def last_map(self, images: Tensor) -> Tensor:
        """The last of `stages`, for a network that has it cheaper without the others."""
        return self.stages(images)[-1]

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

    @property
    def size_rule(self) -> SizeRule:
        """How larger images are cut to a size that `map_size` takes."""
        return SizeRule()

    def config(self) -> dict[str, Any]:
        """Channels and options, ready for JSON; `from_config` builds the same architecture of it."""
        return {"in_channels": self.in_channels, **self.options.config()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The architecture that `config` describes, with fresh weights.

        Raises: InputError if an option is unknown or cannot be.
        """
        in_channels, options = taken(config, "in_channels")
        return cls(in_channels, cls.options_type.from_config(options))  # type: ignore[arg-type, call-arg]

    @classmethod
    def from_published(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The authors' (or timm's) state dict with the names that this class gives its parameters; no classifier.

        What it does not know keeps its name, so that a strict load recognises another network by its keys.
        """
        return {key: value for key, value in state.items() if key not in CLASSIFIERS}

    def forward(self, images: Tensor) -> Features:
        regions = self.last_map(images).flatten(2).transpose(1, 2)
        return Features(view=regions.mean(dim=1), regions=regions)

    def fold(self) -> MapBackbone:
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


class FixedFrontBackbone(MapBackbone):
    """A backbone whose first part learns nothing, so that what it says of an image is computed once.

    `forward` takes what `fixed_features` gives in the place of images. The view is the mean of the last map.
    """

    def forward(self, images: Tensor) -> Features:
        return self.from_fixed(images) if images.ndim == 2 else super().forward(images)

    @abstractmethod
    def fixed_features(self, images: Tensor) -> Tensor:
        """What the first part says of images [B, C, H, W]: [B, F]."""

    @abstractmethod
    def from_fixed(self, features: Tensor) -> Features:
        """What the rest says of fixed features [B, F]."""

    @abstractmethod
    def set_domain(self, features: Tensor) -> None:
        """Standardises fixed features as these [N, F] are, of images that stand for all to come."""

    @abstractmethod
    def take_domain(self, other: Self) -> None:
        """Standardises as another network does."""


CLASSIFIERS = frozenset(  # parameters of classifiers that state dicts come with
    f"{module}.{kind}" for module in ("head", "head.fc", "head.l", "fc", "classifier") for kind in ("weight", "bias")
)


def taken(config: Mapping[str, Any], key: str) -> tuple[Any, dict[str, Any]]:
    """The value of a key, and all others."""
    return config[key], {name: value for name, value in config.items() if name != key}
