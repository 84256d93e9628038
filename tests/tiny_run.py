"""A run folder as pretraining leaves it, of a network small enough for tests; weights are random."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from ssl_lens.backbones.catalog import backbone_config
from ssl_lens.optim import adamw
from ssl_lens.recipe import images as recipe_images
from ssl_lens.recipe.network import build_method, network_to_train
from ssl_lens.recipe.recipe import load_recipe, resolve_auto
from ssl_lens.runs import checkpoint
from ssl_lens.runs.folder import RunFolder

RECIPE = """
data: {center_crop: 32, stretch: asinh}
model: {name: swin_micro, patch_size: 4, stages: 2}
method: {out_dim: 16, head_hidden_dim: 16, head_bottleneck_dim: 8}
views: {global_size: 32, local_sizes: [16], local_counts: [1]}
optim: {epochs: 20, batch_size: 4}
"""
STEM = "model.stem={group: C4, fields: 4, kernel_size: 3}"


def write_run(root: Path, *overrides: str, channels: int = 1) -> Path:
    """Writes `root` as a run of images of at least 32 px whose flux is about 1e-12, more from channel to channel."""
    recipe_file = root.parent / f"{root.name}.yaml"
    recipe_file.write_text(RECIPE)
    recipe, _ = resolve_auto(load_recipe(recipe_file, overrides), n_images=8, in_channels=channels)
    pixels = np.random.default_rng(0).gamma(2.0, 1e-12, (8, channels, 40, 40))
    pixels = (pixels * np.arange(1, channels + 1)[:, None, None]).astype(np.float32)
    folder = RunFolder(root)
    preprocess = recipe_images.preprocess(recipe, pixels, recipe_images.pixel_policy(recipe))
    root.mkdir()
    folder.recipe.write_text(recipe.to_yaml())
    folder.preprocess.write_text(json.dumps(preprocess.config()))
    folder.images.write_text(json.dumps({"shape": [channels, 40, 40], "names": [f"{i}.npy" for i in range(8)]}))
    method = build_method(recipe, network_to_train(recipe))
    network = {"seed": recipe.seed, "backbone": backbone_config(method.backbone), "pooling": recipe.features.pooling}
    folder.backbone.write_text(json.dumps(network))
    save_file(method.student.backbone.state_dict(), root / "began_with.safetensors")
    torch.manual_seed(1)
    for parameter in method.backbone.parameters():  # as after training: not the weights that the seed gives
        parameter.data += 0.01 * torch.randn_like(parameter)
    optimizer = adamw(method.trained)
    checkpoint.save(folder.checkpoints, method, optimizer, None, backbone=method.backbone, observed={}, step=3, keep=2)
    return root


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
