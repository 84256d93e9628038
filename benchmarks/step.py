"""One whole training step (views to EMA) next to the plain loop that a user would write with timm and lightly.

    python benchmarks/step.py --out FOLDER

Both train a Swin-T with a DINO head and the view loss on 2 x 64 px and 6 x 32 px of 64 px images, with the same
widths, batch and number of prototypes. The plain loop takes timm's Swin as it comes, built for 224 px, which pads
small maps to whole windows. A steerable network stands next to its own layers, each done to a whole batch by `conv2d`.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from unittest import mock

import numpy as np
import timm
import torch
from lightly.loss import DINOLoss
from lightly.models.modules import DINOProjectionHead
from lightly.models.utils import update_momentum
from lightly.transforms.dino_transform import DINOTransform
from PIL import Image
from side_by_side import Comparison, arguments, compare, report, time_in_turn
from torch import nn

from ssl_lens.backbones.eqcvt_invariant import EqCvTInvariant
from ssl_lens.backbones.steerable.convolution import SteerableLayer
from ssl_lens.backbones.steerable.fields import AntialiasedDownsample
from ssl_lens.backbones.swin import Swin
from ssl_lens.engine.loop import train
from ssl_lens.engine.processes import join_processes
from ssl_lens.engine.schedule import Schedule
from ssl_lens.methods.dino import DINO, DINOOptions
from ssl_lens.optim import adamw
from ssl_lens.views.geometry import LensSafe
from ssl_lens.views.multicrop import MultiCrop
from ssl_lens.views.photometry import Photometry

IMAGE_SIZE, GLOBAL_SIZE, LOCAL_SIZE, N_LOCAL = 64, 64, 32, 6
BATCH_SIZE = 16
STEERABLE_CROPS, STEERABLE_SIZE = 2 * 64, 56
HIDDEN_DIM, BOTTLENECK_DIM, OUT_DIM = 2048, 256, 4096
LR, WEIGHT_DECAY, EMA_MOMENTUM, TEACHER_TEMP, CLIP_NORM = 1e-4, 0.04, 0.996, 0.04, 3.0


def our_step(images: torch.Tensor, bf16: bool) -> Callable[[], None]:
    """A step of the training loop itself, guards and all; what observers do between steps is left out."""
    torch.manual_seed(0)
    options = DINOOptions(
        view_weight=1.0,
        region_weight=0.0,
        out_dim=OUT_DIM,
        head_hidden_dim=HIDDEN_DIM,
        head_bottleneck_dim=BOTTLENECK_DIM,
        norm_last_layer=True,
        freeze_last_layer_epochs=0,
        teacher_temp=TEACHER_TEMP,
        ema_momentum=EMA_MOMENTUM,
    )
    method = DINO(Swin(in_channels=1), options)
    optimizer = adamw(method.trained)
    multicrop = MultiCrop(
        LensSafe(),
        flux_effects=Photometry(),
        global_size=GLOBAL_SIZE,
        local_sizes=(LOCAL_SIZE,),
        local_counts=(N_LOCAL,),
    )
    schedule = Schedule(
        epochs=1,
        steps_per_epoch=1,
        lr=LR,
        final_lr=LR,
        lr_warmup_epochs=0,
        weight_decay=WEIGHT_DECAY,
        final_weight_decay=WEIGHT_DECAY,
        method=method.schedule(1, 1),
    )
    index = torch.arange(len(images))

    def step() -> None:
        accelerator = join_processes(
            cpu=True, precision="bf16" if bf16 else "no", cpu_threads=torch.get_num_threads()
        )  # fmt: skip
        train(
            method,
            optimizer,
            lambda _: [multicrop(images, index, seed=0, epoch=0)],
            schedule,
            accelerator,
            clip_norm=CLIP_NORM,
        )

    return step


def plain_network(drop_path: float) -> nn.Module:
    backbone = timm.create_model(
        "swin_tiny_patch4_window7_224", in_chans=1, num_classes=0, drop_path_rate=drop_path, strict_img_size=False
    )
    return nn.Sequential(backbone, DINOProjectionHead(backbone.num_features, HIDDEN_DIM, BOTTLENECK_DIM, OUT_DIM))


def plain_step(pictures: list[Image.Image], bf16: bool) -> Callable[[], None]:
    """As lightly's DINO example, with timm's Swin."""
    torch.manual_seed(0)
    student, teacher = plain_network(drop_path=0.1), plain_network(drop_path=0.0).requires_grad_(False)
    teacher.load_state_dict(student.state_dict())
    criterion = DINOLoss(OUT_DIM)
    optimizer = torch.optim.AdamW(student.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    transform = DINOTransform(
        global_crop_size=GLOBAL_SIZE,
        local_crop_size=LOCAL_SIZE,
        n_local_views=N_LOCAL,
        normalize={"mean": [0.5], "std": [0.25]},
    )

    def step() -> None:
        views = [torch.stack(view) for view in zip(*(transform(picture) for picture in pictures), strict=True)]
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            with torch.no_grad():
                target = [teacher(view) for view in views[:2]]
            output = [student(view) for view in views]
        criterion([t.float() for t in target], [o.float() for o in output], teacher_temp=TEACHER_TEMP).backward()
        nn.utils.clip_grad_norm_(student.parameters(), CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad()
        update_momentum(student, teacher, EMA_MOMENTUM)

    return step


def steerable_step(bf16: bool, plain: bool) -> Callable[[], None]:
    """Forward of student and teacher, backward of the student, through `eqcvt_invariant`.

    `plain`: convolutions and batch norms of whole maps, as on a GPU.
    """
    torch.manual_seed(0)
    student = EqCvTInvariant(in_channels=1).train().to(memory_format=torch.channels_last)
    teacher = copy.deepcopy(student).requires_grad_(False)
    crops = torch.randn(STEERABLE_CROPS, 1, STEERABLE_SIZE, STEERABLE_SIZE)

    def step() -> None:
        with ExitStack() as patches:
            if plain:
                patches.enter_context(mock.patch.object(SteerableLayer, "of_batch", return_value=None))
                by_convolution = AntialiasedDownsample.by_convolution
                patches.enter_context(mock.patch.object(AntialiasedDownsample, "by_matrices", by_convolution))
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                with torch.no_grad():
                    target = teacher(crops).view
                loss = (student(crops).view.float() - target.float().flip(0)).square().sum()
            loss.backward()
            student.zero_grad()

    return step


def compared(
    network: str,
    seconds: dict[str, list[float]],
    pairs: Sequence[tuple[str, str, float | None]],
    *,
    count: int,
    unit: str,
) -> list[Comparison]:
    """A row for each pair of ours and plain, with the ratio that is aimed at."""
    return [
        compare(f"{network}{ours}, {plain}", seconds[ours], seconds[plain], count=count, unit=unit, target_ratio=target)
        for ours, plain, target in pairs
    ]


def main() -> None:
    given = arguments(__doc__.splitlines()[0], repeats=5)
    bytes_ = np.random.default_rng(0).integers(0, 256, (BATCH_SIZE, IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint8)
    pictures = [Image.fromarray(image) for image in bytes_]
    images = (torch.from_numpy(bytes_)[:, None].float() / 255 - 0.5) / 0.25
    steps = {
        "ours float32": our_step(images, bf16=False),
        "ours bf16": our_step(images, bf16=True),
        "plain float32": plain_step(pictures, bf16=False),
        "plain bf16": plain_step(pictures, bf16=True),
    }
    seconds = time_in_turn(steps, given.repeats)
    pairs = (
        ("ours float32", "plain float32", 2.5),
        ("ours bf16", "plain float32", 4.5),
        ("ours bf16", "plain bf16", None),
    )
    rows = compared("", seconds, pairs, count=BATCH_SIZE, unit="images")
    steps = {
        f"{form} {'bf16' if bf16 else 'float32'}": steerable_step(bf16, form == "plain")
        for form in ("in parts", "plain")
        for bf16 in (False, True)
    }
    seconds = time_in_turn(steps, given.repeats, clock=time.process_time)
    pairs = (
        ("in parts float32", "plain float32", None),
        ("in parts bf16", "plain bf16", None),
        ("in parts bf16", "plain float32", 2.0),
    )
    rows += compared("eqcvt_invariant, ", seconds, pairs, count=STEERABLE_CROPS, unit="crops")
    report(rows, given.out / "step.json")


if __name__ == "__main__":
    main()
