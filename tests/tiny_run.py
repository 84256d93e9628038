"""A run folder as pretraining leaves it, of a network small enough for tests; weights are random."""

import copy
import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from ssl_lens.backbones import catalog
from ssl_lens.recipe import images as recipe_images
from ssl_lens.recipe.recipe import load_recipe, resolve_auto

RECIPE = """
data: {center_crop: 32, stretch: asinh}
model: {name: swin_micro, patch_size: 4, stages: 2, out_dim: 16, head_hidden_dim: 16, head_bottleneck_dim: 8}
views: {global_size: 32, local_sizes: [16], local_counts: [1]}
optim: {epochs: 20, batch_size: 4}
"""
PREFIX = "teacher.backbone."
STEM = "model.stem={group: C4, fields: 4, kernel_size: 3}"


def write_run(root: Path, *overrides: str, channels: int = 1) -> Path:
    """Writes `root` as a run of images of at least 32 px whose flux is about 1e-12, more from channel to channel."""
    recipe_file = root.parent / f"{root.name}.yaml"
    recipe_file.write_text(RECIPE)
    recipe, _ = resolve_auto(load_recipe(recipe_file, overrides), n_images=8, in_channels=channels)
    pixels = np.random.default_rng(0).gamma(2.0, 1e-12, (8, channels, 40, 40))
    pixels = (pixels * np.arange(1, channels + 1)[:, None, None]).astype(np.float32)
    preprocess = recipe_images.preprocess(recipe, pixels, recipe_images.pixel_policy(recipe))
    root.mkdir()
    (root / "recipe.yaml").write_text(recipe.to_yaml())
    (root / "preprocess.json").write_text(json.dumps(preprocess.config()))
    (root / "images.json").write_text(
        json.dumps({"shape": [channels, 40, 40], "names": [f"{i}.npy" for i in range(8)]})
    )
    torch.manual_seed(recipe.seed)
    save_file(catalog.backbone(recipe, channels).state_dict(), root / "began_with.safetensors")  # the student, before
    teacher = catalog.backbone(recipe, channels)
    config = catalog.unfolded(catalog.backbone_config(copy.deepcopy(teacher).eval().fold()))
    (root / "backbone.json").write_text(json.dumps({"seed": recipe.seed, "backbone": config}))
    _write_checkpoint(root / "checkpoints" / "step_00000003", teacher)
    return root


def _write_checkpoint(folder: Path, teacher: torch.nn.Module) -> None:
    folder.mkdir(parents=True)
    state = {f"{PREFIX}{name}": value.contiguous() for name, value in teacher.state_dict().items()}
    save_file(state | {"teacher.view_head.weight": torch.zeros(2, 2)}, folder / "method.safetensors")
    (folder / "state.json").write_text(json.dumps({"step": 3, "backbone": PREFIX}))
    sums = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}
    (folder / "checksums.json").write_text(json.dumps(sums))


def write_labelled_images(root: Path, *, per_class: int, classes: tuple[str, ...] = ("arc", "ring")) -> Path:
    """Writes class folders of 1-channel 40 px images of flux 1e-12: the class shows as a blob of another width."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[-20:20, -20:20] + 0.5
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        blob = np.exp(-(x**2 + y**2) / (2 * (2.0 + 3.0 * label) ** 2))
        for i in range(per_class):
            image = 1e-12 * (4 * blob + rng.normal(0, 0.3, blob.shape))
            np.save(root / name / f"{i:03d}.npy", image.astype(np.float32))
    return root


def flag_and_enlarge(root: Path, *, value: float = 100.0) -> None:
    """Of labelled images, flags 4 pixels of each class's image 0, and makes image 1 larger, 44x42 px, around."""
    for folder in root.iterdir():
        flagged, small = np.load(folder / "000.npy"), np.load(folder / "001.npy")
        flagged[18:20, 18:20] = value
        large = np.full((44, 42), value / 2, np.float32)
        large[2:-2, 1:-1] = small
        np.save(folder / "000.npy", flagged)
        np.save(folder / "001.npy", large)
