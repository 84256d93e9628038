"""A picture of the views, to judge by eye whether a lens is still a lens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ssl_lens.pictures import drawable, shown_channels
from ssl_lens.views.multicrop import Views

_INCHES_PER_VIEW = 1.3
_INCHES_OF_TITLE = 0.4


def save_views(
    views: Views,
    path: Path,
    images: Tensor,
    *,
    pictures: Sequence[bool],
    rgb: tuple[int, int, int] | None = None,
) -> None:
    """Writes one row per image, one column per view, global before local, the image in front; sizes are to scale.

    Args:
        views: of a few images.
        path: PNG (or whatever matplotlib knows by its suffix).
        images: [B, C, H, W] that the views come from.
        pictures, rgb: of each image, and of all, as of `drawable`, which says how they are drawn.

    Raises: InputError as `drawable`.
    """
    columns = [("image", images)]
    columns += [(f"global {number}", crops) for number, crops in enumerate(views.global_crops)]
    columns += [
        (f"local {number}", crops) for resolution in views.local_crops for number, crops in enumerate(resolution)
    ]
    shown_channels(images.shape[1], picture=pictures[0], rgb=rgb)  # refused before anything is drawn
    largest = max(crops.shape[-1] for _, crops in columns)
    n_rows = views.global_crops.shape[1]
    width, height = _INCHES_PER_VIEW * len(columns), _INCHES_PER_VIEW * n_rows
    figure = Figure(figsize=(width, height))
    axes = figure.subplots(n_rows, len(columns), squeeze=False)
    top = 1 - _INCHES_OF_TITLE / height
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=top, wspace=0.04, hspace=0.04)
    for row in range(n_rows):
        reference = images[row].float()
        low, high = torch.quantile(reference, torch.tensor([0.005, 0.995], device=reference.device)).tolist()
        for axis, (name, crops) in zip(axes[row], columns, strict=True):
            stretched = ((crops[row].float().cpu() - low) / max(high - low, 1e-12)).clamp(0, 1)
            shown = drawable(stretched.numpy(), picture=pictures[row], rgb=rgb)
            shown = np.moveaxis(shown, 0, 2) if len(shown) == 3 else shown[0]
            axis.imshow(shown, cmap="inferno", vmin=0, vmax=1, interpolation="nearest")
            margin = (largest - crops.shape[-1]) / 2
            axis.set_xlim(-0.5 - margin, crops.shape[-1] - 0.5 + margin)
            axis.set_ylim(crops.shape[-2] - 0.5 + margin, -0.5 - margin)
            axis.set_axis_off()
            if row == 0:
                axis.set_title(f"{name}\n{crops.shape[-1]} px", fontsize=7)
    figure.savefig(path, dpi=150)
