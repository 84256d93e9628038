"""What a view policy is: a section of a recipe that says where views look and what happens to their pixels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from ssl_lens.section import Section
from ssl_lens.views.photometry import ViewKind


class Geometry(Protocol):
    """Where views of `size` px look in an image of (height, width) px: affine maps [B, V, 2, 3], see geometry.py.

    Args:
        keys: of the random numbers, int64 [B, V].
    """

    def global_maps(self, keys: Tensor, size: int, image_size: tuple[int, int]) -> Tensor: ...

    def local_maps(self, keys: Tensor, size: int, image_size: tuple[int, int]) -> Tensor: ...


class PixelEffects(Protocol):
    """What happens to the pixels of `views` [V, B, C, s, s], in place or not.

    Args:
        keys: of the random numbers, int64 [V, B], on the CPU.
        kinds: one per view.
        noise: standard deviation of the noise in each image and channel [B, C], on the CPU; None where not known.
    """

    def __call__(
        self, views: Tensor, keys: Tensor, kinds: Sequence[ViewKind], noise: Tensor | None = None
    ) -> Tensor: ...


class Policy(Section):
    """How views differ from the image that they are of."""

    @abstractmethod
    def geometry(self) -> Geometry:
        """Where views look."""

    @abstractmethod
    def pixel_effects(self, pixel_range: tuple[float, float]) -> PixelEffects:
        """What happens to their pixels.

        Args:
            pixel_range: lowest and highest pixel of the prepared images.
        """

    @property
    def changes_pixels(self) -> bool:
        """Whether a view as large as the image differs from it."""
        return True

    def margin_px(self, size: int) -> float:
        """How far views of `size` px may look beyond the border of the image; 0 if never."""
        return 0.0

    def added_noise(self) -> tuple[float, float] | None:
        """What views add to the noise of their image, where that is known: from and to, in its units; None: nothing."""
        return None

    def check(self, size: int) -> None:  # noqa: B027, a hook that a policy need not have
        """Raises InputError that names an option, and `size=...`, if views of this side in px cannot be made."""
