"""What a view policy is: a section of a recipe that says where views look and what happens to their pixels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple, Protocol

from torch import Tensor

from ssl_lens.section import Section


class ViewKind(IntEnum):
    """Place of a view among the views of its image; an effect may be more likely in one than in another."""

    FIRST_GLOBAL = 0
    OTHER_GLOBAL = 1
    LOCAL = 2


class Geometry(Protocol):
    """Where views of `size` px look in an image of (height, width) px: affine maps [B, V, 2, 3], see geometry.py.

    Args:
        keys: of the random numbers, int64 [B, V].
    """

    def global_maps(self, keys: Tensor, size: int, image_size: tuple[int, int]) -> Tensor: ...

    def local_maps(self, keys: Tensor, size: int, image_size: tuple[int, int]) -> Tensor: ...


class Sky(NamedTuple):
    """Pixels without a source, in units that are linear in flux; on the CPU, where numbers are drawn.

    Attributes:
        level: of each channel [C].
        noise: standard deviation in each image and channel, [..., C].
    """

    level: Tensor
    noise: Tensor


class FluxEffects(Protocol):
    """What a telescope does to `views` [V, B, C, s, s] whose pixels are linear in flux, in place or not.

    Args:
        keys: of the random numbers, int64 [V, B], on the CPU.
        kinds: one per view.
        sky: its noise is that of each view, [V, B, C].
    """

    def __call__(self, views: Tensor, keys: Tensor, kinds: Sequence[ViewKind], sky: Sky) -> Tensor: ...


class PixelEffects(Protocol):
    """What happens to `views` [V, B, C, s, s] as a network sees them, stretched, in place or not.

    Args:
        keys: of the random numbers, int64 [V, B], on the CPU.
        kinds: one per view.
    """

    def __call__(self, views: Tensor, keys: Tensor, kinds: Sequence[ViewKind]) -> Tensor: ...


class Policy(Section):
    """How views differ from the image that they are of."""

    @abstractmethod
    def geometry(self) -> Geometry:
        """Where views look."""

    def flux_effects(self) -> FluxEffects | None:
        """What happens to their flux, before it is stretched; None: nothing."""
        return None

    def pixel_effects(self, pixel_range: tuple[float, float]) -> PixelEffects | None:
        """What happens to their pixels once stretched; None: nothing.

        Args:
            pixel_range: lowest and highest of them in the images.
        """
        return None

    @property
    def changes_pixels(self) -> bool:
        """Whether a view as large as the image differs from it."""
        return True

    def margin_px(self, size: int) -> float:
        """How far views of `size` px may look beyond the border of the image; 0 if never."""
        return 0.0

    def added_noise(self) -> tuple[float, float] | None:
        """What views add to the noise of their image: from and to, in its units; None: nothing."""
        return None

    def check(self, size: int) -> None:  # noqa: B027, a hook that a policy need not have
        """Raises InputError that names an option, and `size=...`, if views of this side in px cannot be made."""
