"""Views per second and core next to lightly's DINOTransform: 2 x 64 px and 6 x 32 px from images of 64 px.

`lens_safe` with an asinh stretch, which every view has to itself.

    python benchmarks/views.py --out FOLDER

Both start from decoded images in memory (lightly: 8-bit PIL, as it needs) and end in tensors of the same sizes, on
one thread. CPU seconds are counted, so that neighbours on the machine do not.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from lightly.transforms.dino_transform import DINOTransform
from PIL import Image
from side_by_side import Comparison, arguments, compare, report, time_in_turn

from ssl_lens.data.pixels.preprocess import Preprocess
from ssl_lens.data.pixels.stretch import Stretch
from ssl_lens.views.colour_jitter import ColourJitter
from ssl_lens.views.geometry import ImageNetCrops, LensSafe
from ssl_lens.views.multicrop import MultiCrop
from ssl_lens.views.photometry import Photometry

IMAGE_SIZE, GLOBAL_SIZE, LOCAL_SIZE, N_LOCAL = 64, 64, 32, 6
BATCH_SIZE = 64
TARGET_RATIO = 10.0


def pil_views(channels: int) -> DINOTransform:
    """The reference's augmentations at the same sizes and its default probabilities."""
    return DINOTransform(
        global_crop_size=GLOBAL_SIZE,
        local_crop_size=LOCAL_SIZE,
        n_local_views=N_LOCAL,
        normalize={"mean": [0.5] * channels, "std": [0.25] * channels},
    )


def our_views(policy: str) -> MultiCrop:
    asinh = Preprocess(None, 1, Stretch("asinh", [0.0], [1.0]), mean=[0.1], std=[0.9], sky=[0.0])
    sizes = {"global_size": GLOBAL_SIZE, "local_sizes": (LOCAL_SIZE,), "local_counts": (N_LOCAL,)}
    return {
        "lens_safe": MultiCrop(LensSafe(), flux_effects=Photometry(), stretch=asinh.stretched, **sizes),
        "imagenet": MultiCrop(ImageNetCrops(), pixel_effects=ColourJitter(), **sizes),
    }[policy]


def compare_policy(policy: str, channels: int, repeats: int) -> Comparison:
    bytes_ = np.random.default_rng(0).integers(0, 256, (BATCH_SIZE, IMAGE_SIZE, IMAGE_SIZE, channels), dtype=np.uint8)
    pictures = [Image.fromarray(image.squeeze()) for image in bytes_]
    images = (torch.from_numpy(bytes_).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
    index = torch.arange(BATCH_SIZE)
    ours, reference = our_views(policy), pil_views(channels)
    seconds = time_in_turn(
        {
            "ours": lambda: ours(images.contiguous(), index, seed=0, epoch=0),
            "reference": lambda: [reference(picture) for picture in pictures],
        },
        repeats,
        clock=time.process_time,
    )
    return compare(
        f"{policy}, {channels} channel(s)",
        seconds["ours"],
        seconds["reference"],
        count=BATCH_SIZE * (2 + N_LOCAL),
        unit="views",
        target_ratio=TARGET_RATIO,
    )


def main() -> None:
    given = arguments(__doc__.splitlines()[0], repeats=15)
    torch.set_num_threads(1)
    # as after any training step: having once freed a large block, glibc keeps memory instead of returning it
    torch.empty(31 * 2**20, dtype=torch.uint8)
    rows = [compare_policy("lens_safe", 1, given.repeats), compare_policy("imagenet", 3, given.repeats)]
    report(rows, given.out / "views.json")


if __name__ == "__main__":
    main()
