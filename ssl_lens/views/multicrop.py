"""All views of a batch of images, made on the images' device in one resampling."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lens.errors import InputError
from ssl_lens.transfer import sent
from ssl_lens.views.policy import FluxEffects, Geometry, PixelEffects, Sky, ViewKind
from ssl_lens.views.randomness import fold_in, image_keys

_CPU_CHUNK = 64  # images at a time: the memory of their temporaries is then used again, not mapped afresh


class Views(NamedTuple):
    """Crops of one batch: view-major, one tensor per resolution.

    Attributes:
        global_crops: [G, B, C, S, S].
        local_crops: per local resolution [L_r, B, C, s_r, s_r]; empty without local crops.
    """

    global_crops: Tensor
    local_crops: tuple[Tensor, ...] = ()

    def all(self) -> tuple[Tensor, ...]:
        """The crops of every resolution, global ones first."""
        return self.global_crops, *self.local_crops


class MultiCrop(nn.Module):
    """Global and local crops as DINO's, in batches: light is resampled, observed, stretched, in this order.

    Images are linear in flux, as light adds up: between two pixels of an image lies the mean of their fluxes, so that a
    turned view has the flux of its image, and noise is white in the pixels of the view.

    A view of an image depends on (seed, epoch, image index) and its own number alone: neither on the rest of the
    batch nor on device or rank. Of several renderings of an object, each view shows another one, in turn over the
    epochs. Random numbers are drawn on the CPU (some hundred bytes an image), so that choosing
    which views to blur costs a GPU no synchronisation; only pixel noise is drawn where the pixels are.

    Args:
        geometry: where views look.
        flux_effects: what happens to their flux; None: nothing.
        stretch: what makes a network's input of linear pixels [..., C, h, w]; None: they are that already.
        pixel_effects: what happens to that input; None: nothing.
        global_size, n_global: side in px and number of global crops.
        local_sizes, local_counts: side in px and number of local crops, per resolution.
        interpolation: "bilinear" or "bicubic" (sharper, four times as slow).
        margin: px on each side of the tensors given that are the surroundings of the image: no view is placed by them,
            but one that is turned shows them in its corners. Beyond what is given, the last row or column goes on.
        sky: of the set, its noise that of each image of it, [N, C], or of k renderings of each object, [N, k, C]; None:
            a level of 0 with a noise of 1.
    """

    def __init__(
        self,
        geometry: Geometry,
        *,
        flux_effects: FluxEffects | None = None,
        stretch: Callable[[Tensor], Tensor] | None = None,
        pixel_effects: PixelEffects | None = None,
        global_size: int,
        n_global: int = 2,
        local_sizes: tuple[int, ...] = (),
        local_counts: tuple[int, ...] = (),
        interpolation: str = "bilinear",
        margin: int = 0,
        sky: Sky | None = None,
    ) -> None:
        super().__init__()
        if len(local_sizes) != len(local_counts):
            raise InputError(
                f"local_sizes has {len(local_sizes)} entries and local_counts has {len(local_counts)}; "
                "give one count per size"
            )
        self.geometry = geometry
        self.flux_effects = flux_effects
        self.stretch = stretch
        self.pixel_effects = pixel_effects
        self.sizes = (global_size, *local_sizes)
        self.counts = (n_global, *local_counts)
        self.interpolation = interpolation
        self.margin = margin
        self.sky = sky  # not buffers: they stay on the CPU

    @torch.no_grad()
    def forward(self, images: Tensor, index: Tensor, *, seed: int, epoch: int) -> Views:
        """Makes the views.

        Args:
            images: float32 [B, C, H, W], linear in flux, any device, with their margin; or k renderings of each object,
                [B, k, C, H, W].
            index: integers [B] on the CPU, place of every image in its data set.
            seed, epoch: of the run.

        Raises:
            InputError: a crop is larger than the images.
        """
        height, width = self.within(images).shape[-2:]
        if max(self.sizes) > min(height, width):
            name = "global_size" if self.sizes[0] == max(self.sizes) else "local_sizes"
            raise InputError(
                f"{name}={max(self.sizes)} exceeds the image size {height}x{width}; "
                f"set it to {min(height, width)} or less"
            )
        keys = fold_in(image_keys(seed, epoch, index)[:, None], torch.arange(sum(self.counts)))
        chunk = _CPU_CHUNK if images.device.type == "cpu" else len(images)
        pieces = zip(images.split(chunk), keys.split(chunk), index.split(chunk), strict=True)
        parts = [self._crops(*piece, epoch) for piece in pieces]
        crops = [torch.cat(part, dim=1) for part in zip(*parts, strict=True)]
        return Views(crops[0], tuple(crops[1:]))

    def within(self, images: Tensor) -> Tensor:
        """The images [..., h, w] without their margin."""
        margin = self.margin
        return images[..., margin : images.shape[-2] - margin, margin : images.shape[-1] - margin]

    def _crops(self, images: Tensor, keys: Tensor, index: Tensor, epoch: int) -> list[Tensor]:
        """Crops [V, B, C, s, s] per resolution; `keys` [B, number of views]."""
        image_size = images.shape[-2] - 2 * self.margin, images.shape[-1] - 2 * self.margin
        where, pixels = fold_in(keys, 0).split(self.counts, dim=1), fold_in(keys, 1).split(self.counts, dim=1)
        maps = [self.geometry.global_maps(where[0], self.sizes[0], image_size)]
        for local_keys, size in zip(where[1:], self.sizes[1:], strict=True):
            maps.append(self.geometry.local_maps(local_keys, size, image_size))
        renderings = images if images.ndim == 5 else images[:, None]
        # All of them through every map: one resampling of k images costs little next to a step.
        looked = resample(renderings.flatten(1, 2), maps, self.sizes, self.interpolation)
        crops = _in_turn(looked, renderings.shape[1], epoch)

        kinds = [[ViewKind.FIRST_GLOBAL] + [ViewKind.OTHER_GLOBAL] * (self.counts[0] - 1)]
        kinds += [[ViewKind.LOCAL] * count for count in self.counts[1:]]
        level, noise = self._sky(index, renderings)
        of_views = torch.stack([_rendering(noise, view, epoch) for view in range(sum(self.counts))]).split(self.counts)
        parts = zip(crops, (k.T for k in pixels), kinds, of_views, strict=True)
        return [self._seen(views, keys, kinds, Sky(level, noise)) for views, keys, kinds, noise in parts]

    def _sky(self, index: Tensor, renderings: Tensor) -> Sky:
        """That of images [B, k, C, H, W], its noise [B, k, C]."""
        shape = renderings.shape[:3]
        if self.sky is None:
            return Sky(torch.zeros(shape[2]), torch.ones(shape))
        return Sky(self.sky.level, self.sky.noise[index].reshape(shape))

    def _seen(self, views: Tensor, keys: Tensor, kinds: list[ViewKind], sky: Sky) -> Tensor:
        """Views [V, B, C, s, s] as a network sees them."""
        if self.flux_effects is not None:
            views = self.flux_effects(views, keys, kinds, sky)
        if self.stretch is not None:
            views = self.stretch(views)
        return views if self.pixel_effects is None else self.pixel_effects(views, keys, kinds)


def _in_turn(looked: list[Tensor], renderings: int, epoch: int) -> list[Tensor]:
    """Of crops [V, B, k C, s, s] of k renderings those that views show: [V, B, C, s, s] per resolution."""
    if renderings == 1:
        return looked
    first, shown = 0, []
    for part in looked:
        each = enumerate(part.unflatten(2, (renderings, -1)), first)
        shown.append(torch.stack([_rendering(view, number, epoch) for number, view in each]))
        first += len(part)
    return shown


def views_of_features(features: Tensor, epoch: int) -> Views:
    """Two views of each object from what is known of its k renderings, [B, k, F]: global crops [2, B, F], chosen as
    `MultiCrop` chooses the renderings."""
    return Views(torch.stack([_rendering(features, view, epoch) for view in range(2)]))


def _rendering(renderings: Tensor, view: int, epoch: int) -> Tensor:
    """Of renderings [B, k, ...] the one [B, ...] that a view shows."""
    return renderings[:, (view + epoch) % renderings.shape[1]]


def resample(images: Tensor, maps: list[Tensor], sizes: tuple[int, ...], interpolation: str) -> list[Tensor]:
    """Looks at images through affine maps; outside an image its edge goes on.

    All views of an image share one `grid_sample`: their pixels are listed one after the other, so that images need
    not be repeated per view. x and y lie in separate planes, which is the order the CPU kernel reads fastest.

    Shapes: images [B, C, H, W]; per resolution a map [B, V, 2, 3] (see geometry.py) and a size s give [V, B, C, s, s].
    """
    batch, channels, height, width = images.shape
    device = images.device
    pixels = [map_.shape[1] * size**2 for map_, size in zip(maps, sizes, strict=True)]
    to_unit = torch.tensor([[2 / width], [2 / height]])  # px from the centre -> grid_sample's [-1, 1]
    planes = torch.empty(batch, 2, sum(pixels), device=device)
    for map_, size, plane in zip(maps, sizes, planes.split(pixels, dim=2), strict=True):
        a, b, c = sent(map_ * to_unit, device).permute(3, 0, 2, 1)[..., None, None].unbind(0)  # each [B, 2, V, 1, 1]
        position = torch.arange(size, device=device, dtype=torch.float32) - (size - 1) / 2
        torch.add(a * position, b * position[:, None] + c, out=plane.unflatten(2, (-1, size, size)))
    grid = planes[:, :, None].permute(0, 2, 3, 1)  # [B, 1, P, 2]
    # mirrored instead, an arc would come back in the corner of a rotated view as a counter-image that no lens made
    looked = F.grid_sample(images, grid, mode=interpolation, padding_mode="border", align_corners=False)
    return [
        part.unflatten(3, (-1, size, size))[:, :, 0].permute(2, 0, 1, 3, 4).contiguous()
        for part, size in zip(looked.split(pixels, dim=3), sizes, strict=True)
    ]
