"""One whole training step (views to EMA) beside the plain loop that a user would write with timm and lightly.

    python benchmarks/step.py --out FOLDER

Both train a Swin-T with a DINO head and the view loss on 2 x 64 px and 6 x 32 px of 64 px images, with the same
widths, batch and number of prototypes. The plain loop takes timm's Swin as it comes, built for 224 px, which pads
small maps to whole windows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import timm
import torch
from lightly.loss import DINOLoss
from lightly.models.modules import DINOProjectionHead
from lightly.models.utils import update_momentum
from lightly.transforms.dino_transform import DINOTransform
from PIL import Image
from side_by_side import arguments, compare, report, time_in_turn
from torch import nn

from ssl_lens.backbones.swin import Swin
from ssl_lens.losses.center import Centering
from ssl_lens.losses.view import ViewLoss
from ssl_lens.methods.criterion import Criterion
from ssl_lens.methods.heads import ProjectionHead
from ssl_lens.methods.network import Network
from ssl_lens.methods.student_teacher import make_teacher, update_teacher
from ssl_lens.optim import adamw, clip_per_tensor, set_hyperparameters
from ssl_lens.schedules import Hyperparameters
from ssl_lens.views.geometry import LensSafe
from ssl_lens.views.multicrop import MultiCrop
from ssl_lens.views.photometry import Photometry

IMAGE_SIZE, GLOBAL_SIZE, LOCAL_SIZE, N_LOCAL = 64, 64, 32, 6
BATCH_SIZE = 16
HIDDEN_DIM, BOTTLENECK_DIM, OUT_DIM = 2048, 256, 4096
NOW = Hyperparameters(lr=1e-4, weight_decay=0.04, ema_momentum=0.996, teacher_temp=0.04, freeze_last_layer=False)
CLIP_NORM = 3.0


def our_step(images: torch.Tensor, bf16: bool) -> Callable[[], None]:
    """The engine's step, without what happens between steps (reports, checkpoints, guards)."""
    torch.manual_seed(0)
    backbone = Swin(in_channels=1)
    head = ProjectionHead(backbone.embed_dim, OUT_DIM, HIDDEN_DIM, BOTTLENECK_DIM, norm_last_layer=True)
    student = Network(backbone, head).train()
    teacher = make_teacher(student)
    criterion = Criterion(ViewLoss(Centering(OUT_DIM)))
    optimizer = adamw(student)
    views_of = MultiCrop(
        LensSafe(), Photometry(), global_size=GLOBAL_SIZE, local_sizes=(LOCAL_SIZE,), local_counts=(N_LOCAL,)
    )
    index = torch.arange(len(images))

    def step() -> None:
        set_hyperparameters(optimizer, NOW)
        views = views_of(images, index, seed=0, epoch=0)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            with torch.no_grad():
                target = teacher([views.global_crops])
            output = student([views.global_crops, *views.local_crops])
        criterion(output, target, teacher_temp=NOW.teacher_temp).total.backward()
        clip_per_tensor(student.parameters(), CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad()
        criterion.update_center([target])
        update_teacher(teacher, student, NOW.ema_momentum)

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
    optimizer = torch.optim.AdamW(student.parameters(), lr=NOW.lr, weight_decay=NOW.weight_decay)
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
        criterion([t.float() for t in target], [o.float() for o in output], teacher_temp=NOW.teacher_temp).backward()
        nn.utils.clip_grad_norm_(student.parameters(), CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad()
        update_momentum(student, teacher, NOW.ema_momentum)

    return step


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
    rows = [
        compare(
            f"{ours}, {plain}",
            seconds[ours],
            seconds[plain],
            count=BATCH_SIZE,
            unit="images",
            target_ratio=target,
        )
        for ours, plain, target in (
            ("ours float32", "plain float32", 2.5),
            ("ours bf16", "plain float32", 4.5),
            ("ours bf16", "plain bf16", None),
        )
    ]
    report(rows, given.out / "step.json")


if __name__ == "__main__":
    main()
