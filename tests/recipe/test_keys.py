"""No key of a recipe is idle: changing it changes a run, or is refused."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_run import write_run

from ssl_lens.backbones import catalog
from ssl_lens.backbones.layers.blocks import Blocks
from ssl_lens.engine.processes import join_processes
from ssl_lens.errors import InputError
from ssl_lens.recipe import compose as composition
from ssl_lens.recipe import network
from ssl_lens.recipe.recipe import VALID_KEYS, Recipe, load_recipe

TINY = """
data: {path: %(images)s}
simulate: {count_per_class: 2, image_size: 20, pixel_scale_arcsec: 0.3}
views: {global_size: 16, local_sizes: [8], local_counts: [1]}
model: {name: swin_micro, patch_size: 2, stages: 2, window_size: 4}
method: {out_dim: 12, head_hidden_dim: 8, head_bottleneck_dim: 4, ema_momentum: 0.9}
optim: {epochs: 2, batch_size: 4, warmup_epochs: 1, lr: 1e-2}
run: {folder: %(run)s, device: cpu, cpu_threads: 1, log_steps: 1}
"""
SIMULATED = ("data.path=null",)
SHARDS = ("data.path={shards}",)
STEM = "model.stem={{group: C4, fields: 2, depth: 1, kernel_size: 3}}"
IMAGENET = ("views.policy=imagenet",)
SINGLE_BAND = ("data.path={colour}", "data.stretch=asinh")

# Another value of every key, and what the recipe says besides where the key has something to decide.
CHANGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "seed": ("1", ()),
    "data.path": ("{others}", ()),
    "data.layout": ("model_i", ()),
    "data.files": ("'[0-3].npy'", ()),
    "data.planes": ("1", ("data.path={colour}",)),
    "data.noise": ("noise", ("data.path={noisy}",)),
    "data.mask": ("mask", ("data.path={noisy}",)),
    "data.exclude": ("{names}", ()),
    "data.renderings": ("lens", ("data.path={pairs}",)),
    "data.probe": ("{images}", ()),
    "data.in_channels": ("3", ()),
    "data.mask_value": ("0.5", ()),
    "data.max_masked": ("0.0", ("data.mask_value=0.5",)),
    "data.sizes": ("pad", ("data.path={unequal}", "data.sizes=crop")),
    "data.size": ("18", ("data.sizes=crop",)),
    "data.center_crop": ("18", ()),
    "data.bin": ("2", ("views.global_size=8", "views.local_sizes=[4]", "model.patch_size=1")),
    "data.stretch": ("asinh", ()),
    "data.bands": ("joint", SINGLE_BAND),
    "data.workers": ("2", (*SHARDS, "data.shuffle_buffer=2", "data.workers=1")),
    "data.shuffle_buffer": ("2", (*SHARDS, "data.workers=0")),
    "simulate.count_per_class": ("3", SIMULATED),
    "simulate.model": ("model_iii", SIMULATED),
    "simulate.image_size": ("24", SIMULATED),
    "simulate.pixel_scale_arcsec": ("0.2", SIMULATED),
    "simulate.as_deeplense": ("true", SIMULATED),
    "simulate.randomised": ("true", SIMULATED),
    "simulate.renderings": ("2", SIMULATED),
    "simulate.redraw": ("[source]", (*SIMULATED, "simulate.renderings=2")),
    "simulate.seed": ("2", SIMULATED),
    "views.policy": ("imagenet", ()),
    "views.global_size": ("12", ()),
    "views.local_sizes": ("[12]", ()),
    "views.local_counts": ("[2]", ()),
    "views.interpolation": ("bicubic", ()),
    "views.lens_safe.max_shift_px": ("1.0", ()),
    "views.lens_safe.flux_scale": ("[0.5, 0.6]", ("views.lens_safe.probability=1.0",)),
    "views.lens_safe.psf_sigma_px": ("[1.0, 1.1]", ("views.lens_safe.probability=1.0",)),
    "views.lens_safe.sky_offset": ("[0.5, 0.6]", ("views.lens_safe.probability=1.0",)),
    "views.lens_safe.noise_ratio": ("[2, 3]", ("views.lens_safe.probability=1.0",)),
    "views.lens_safe.probability": ("1.0", ()),
    "views.imagenet.global_scale": ("[0.9, 1.0]", IMAGENET),
    "views.imagenet.local_scale": ("[0.5, 0.6]", IMAGENET),
    "model.name": ("resnet18", ("model={{name: resnet_micro}}",)),
    "model.weights": ("{weights}", ("model={{name: swin_micro, patch_size: 4, stages: 2}}", "views.local_sizes=[16]")),
    "model.stem.group": ("D4", (STEM,)),
    "model.stem.fields": ("3", (STEM,)),
    "model.stem.depth": ("2", (STEM,)),
    "model.stem.kernel_size": ("5", (STEM,)),
    "model.stem.downsample": ("2", (STEM, "model.patch_size=1")),
    "model.stem.pooling": ("mean", (STEM,)),
    "method.name": ("dyno", ()),
    "method.view_weight": ("0.7", ()),
    "method.region_weight": ("0.7", ()),
    "method.centering": ("sinkhorn", ()),
    "method.center_momentum": ("0.5", ()),
    "method.student_temp": ("0.2", ()),
    "method.teacher_temp": ("0.1", ()),
    "method.warmup_teacher_temp": ("0.01", ("method.warmup_teacher_temp_epochs=2", "method.warmup_teacher_temp=0.02")),
    "method.warmup_teacher_temp_epochs": (
        "2",
        ("method.warmup_teacher_temp=0.01", "method.warmup_teacher_temp_epochs=3", "optim.epochs=3"),
    ),
    "method.mixup": ("0.8", ("method.region_weight=0",)),
    "method.out_dim": ("16", ()),
    "method.head_hidden_dim": ("12", ()),
    "method.head_bottleneck_dim": ("6", ()),
    "method.head_batch_norm": ("true", ()),
    "method.norm_last_layer": ("true", ()),
    "method.freeze_last_layer_epochs": ("0", ()),
    "method.ema_momentum": ("0.5", ()),
    "optim.epochs": ("3", ()),
    "optim.batch_size": ("6", ()),
    "optim.accumulate": ("2", ("model.drop_path=0.5",)),
    "optim.lr": ("2e-2", ()),
    "optim.min_lr": ("5e-3", ()),
    "optim.warmup_epochs": ("0", ()),
    "optim.weight_decay": ("0.3", ()),
    "optim.weight_decay_end": ("0.9", ()),
    "optim.clip_norm": ("0.01", ()),
    "optim.precision": ("bf16", ()),
    "features.pooling": ("view", ()),
    "run.folder": ("{other_run}", ()),
    "run.resume": ("auto", ()),
    "run.device": ("auto", ()),
    "run.compile": ("true", ()),
    "run.cpu_threads": ("2", ()),
    "run.rank_timeout_s": ("60", ()),
    "run.checkpointing": ("true", ()),
    "run.checkpoint_epochs": ("2", ()),
    "run.keep_checkpoints": ("1", ()),
    "run.log_steps": ("3", ()),
    "run.wandb_project": ("lenses", ()),
}
OPTIONS = {f"model.{option}" for option in catalog.all_option_names()}  # tests/backbones shows each to do something


def leaves() -> set[str]:
    """All keys that have a value; those of `simulate.set` belong to tests/simulation."""
    sections = {key.rpartition(".")[0] for key in VALID_KEYS} | {"model.stem", "views.renderings"}  # which has none
    leaf = {key for key in VALID_KEYS if key not in sections and not key.startswith("simulate.set.")}
    return leaf - OPTIONS


def test_every_key_is_walked() -> None:
    assert set(CHANGES) == leaves()


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path | str]:
    """Image sets of 8 images of 20 px, shards of 12, a list of names and weights."""
    from shard_files import member, write_tar

    root, rng = tmp_path_factory.mktemp("keys"), np.random.default_rng(0)
    shapes = {"images": [(20, 20)], "others": [(20, 20)], "unequal": [(20, 20), (22, 20)], "colour": [(2, 20, 20)]}
    for name, of_set in shapes.items():
        for i in range(8):
            (root / name / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
            image = rng.gamma(2.0, 1.0, of_set[i % len(of_set)])
            image[..., 3, 3] = 0.5  # a flagged pixel, where that is a flag
            image[-1] *= 5  # the second band, or a bright row
            np.save(root / name / "ab"[i % 2] / f"{i}.npy", image)
    (root / "noisy").mkdir()
    for i in range(8):
        noise = np.where(np.arange(400).reshape(20, 20) == 7 * i, 0.0, 0.1)  # one pixel that was not measured
        image, mask = rng.gamma(2.0, 1.0, (20, 20)), noise == 0
        np.savez(root / "noisy" / f"{i}.npz", image=image, noise=noise, mask=mask)
    (root / "pairs").mkdir()
    for i in range(16):
        np.save(root / "pairs" / f"{i}.npy", rng.gamma(2.0, 1.0, (20, 20)))
    (root / "pairs" / "targets.csv").write_text("name,lens\n" + "".join(f"{i}.npy,{i // 2}\n" for i in range(16)))
    (root / "names.txt").write_text("a/0.npy\nb/1.npy\n")
    files = sorted((root / "images").rglob("*.npy"))
    write_tar(root / "shards" / "0.tar", [member(f"{i}.npy", file.read_bytes()) for i, file in enumerate(files)])
    write_run(root / "pretrained")
    places = {name: root / name for name in (*shapes, "noisy", "pairs")}
    return places | {"names": root / "names.txt", "shards": f"{root}/shards/0.tar", "weights": root / "pretrained"}


def outcome(recipe: Recipe, joined: list[dict[str, object]]) -> str:
    """A hash of all that a run leaves; InputError if it is refused."""
    run = composition.compose(recipe)
    names = list(run.names)
    again = [module.checkpointing for module in run.method.modules() if isinstance(module, Blocks)]
    run.run()
    digest = hashlib.sha256(json.dumps([names, again, joined[-1], run.folder.root.name], default=str).encode())
    for key, value in run.method.state_dict().items():
        digest.update(key.encode() + value.detach().contiguous().numpy().tobytes())
    digest.update(run.folder.backbone.read_bytes())
    for line in run.folder.metrics.read_text().splitlines():
        record = json.loads(line)
        del record["images_per_s"]
        digest.update(json.dumps(record).encode())
    digest.update(repr(sorted(path.name for path in run.folder.checkpoints.iterdir())).encode())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def unchanged() -> dict[tuple[str, ...], str]:
    """Outcomes of the recipe as it is, by what it says besides."""
    return {}


@pytest.mark.parametrize("key", CHANGES)
def test_changing_a_key_changes_a_run_or_is_refused(
    key: str,
    places: dict[str, Path | str],
    unchanged: dict[tuple[str, ...], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path / "cache"))
    joined: list[dict[str, object]] = []

    def join(**settings: object) -> object:
        joined.append(settings | {"tracker_folder": None})
        return join_processes(**settings)

    monkeypatch.setattr(composition, "join_processes", join)
    monkeypatch.setattr(network, "compiler_problem", lambda device: None)
    monkeypatch.setattr(network, "compile_encoders", lambda method: joined[-1].update(compiled=True))
    value, context = CHANGES[key]
    where = places | {"other_run": tmp_path / "another"}
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY % {"images": places["images"], "run": tmp_path / "run"})
    given = [override.format(**where) for override in context]
    threads = torch.get_num_threads()
    try:
        if context not in unchanged or key == "run.resume":
            unchanged[context] = outcome(load_recipe(file, given), joined)
        if key not in ("run.folder", "run.resume"):
            shutil.rmtree(tmp_path / "run", ignore_errors=True)
        try:
            after = outcome(load_recipe(file, [*given, f"{key}={value.format(**where)}"]), joined)
        except InputError:
            return
        if key == "run.resume":  # it went on, where the other value refuses
            with pytest.raises(InputError, match=r"run\.resume=auto"):
                composition.pretrain(load_recipe(file, given))
            return
        assert after != unchanged[context]
    finally:
        torch.set_num_threads(threads)
