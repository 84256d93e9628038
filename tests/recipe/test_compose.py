"""Names become objects; sizes that cannot work are refused before the first step."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from tiny_run import flag_and_enlarge, write_labelled_images

from ssl_lens.data.pixels.policy import PixelPolicy
from ssl_lens.data.pixels.preprocess import fit_preprocess
from ssl_lens.errors import InputError
from ssl_lens.losses.center import Centering, SinkhornKnopp
from ssl_lens.recipe import compose as composition
from ssl_lens.recipe import images as recipe_images
from ssl_lens.recipe import network
from ssl_lens.recipe.recipe import load_recipe, recipe_of_network, replace, resolve_auto

DEFAULT = recipe_of_network("swin_tiny")
RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"views.global_size": 80}, "views.global_size=80 exceeds the image, 72x72 px"),
        ({"views.global_size": 62}, "not a multiple of model.patch_size=4"),
        ({"views.local_sizes": [16]}, "views.local_sizes=16 leaves a 1x1 last map"),
        ({"views.lens_safe.psf_sigma_px": [0, 11.0]}, "psf_sigma_px reaches 11.0 px, too wide a blur for views.local"),
    ],
)
def test_sizes_that_cannot_work_are_refused(values: dict[str, object], message: str) -> None:
    recipe = replace(DEFAULT, values)
    with pytest.raises(InputError, match=message):
        network.check_sizes(recipe, network.backbone(recipe, 1), 72, 72)


def test_few_regions_are_reported() -> None:
    """Patch 4 and four stages leave 2x2 regions of 64 px; without a region loss that is nobody's business."""
    recipe = replace(DEFAULT, {"views.local_sizes": [], "views.local_counts": []})
    assert network.check_sizes(recipe, network.backbone(recipe, 1), 72, 72) == [
        "views.global_size=64: 2x2 regions on the last map, few for a region loss; lower model.patch_size or "
        "model.stages, raise views.global_size, or set method.region_weight=0"
    ]
    recipe = replace(recipe, {"method.region_weight": 0})
    assert network.check_sizes(recipe, network.backbone(recipe, 1), 72, 72) == [
        "views.global_size=64: 2x2 regions on the last map"
    ]


def test_the_recipe_chooses_what_is_simulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path))
    own = {"count_per_class": 2, "model": "model_iii", "image_size": None, "pixel_scale_arcsec": None}
    wide = own | {"image_size": 48, "pixel_scale_arcsec": 0.15, "set": {"einstein_radius_arcsec": [1.0, 1.1]}}
    for simulate, side in ((own, 64), (wide, 48)):
        images = recipe_images.image_source(replace(DEFAULT, {"simulate": simulate}))
        assert (len(images), images.shape) == (6, (1, side, side))
    tables = sorted(tmp_path.glob("lenses-model_iii-2-per-class-48px-0.15arcsec-*/parameters.csv"))
    with tables[0].open(newline="") as file:
        assert all(1.0 <= float(row["einstein_radius_arcsec"]) <= 1.1 for row in csv.DictReader(file))


@pytest.mark.parametrize(("name", "kind"), [("center", Centering), ("sinkhorn", SinkhornKnopp)])
def test_centering_is_chosen_for_both_losses(name: str, kind: type) -> None:
    recipe = replace(recipe_of_network("swin_micro"), {"method.centering": name})
    resolved = resolve_auto(recipe, n_images=1000, in_channels=1)[0]
    method = network.build_method(resolved, network.network_to_train(resolved))
    assert isinstance(method.view_loss.centering, kind)
    assert isinstance(method.region_loss.centering, kind)
    assert method.view_loss.centering is not method.region_loss.centering


def test_every_number_of_a_schedule_is_the_recipe_s() -> None:
    """All ends differ, so that none can stand in for another."""
    values = {
        "optim.epochs": 8,
        "optim.warmup_epochs": 2,
        "optim.lr": 0.5,
        "optim.min_lr": 0.1,
        "optim.weight_decay": 0.2,
        "optim.weight_decay_end": 0.7,
        "method.ema_momentum": 0.6,
        "method.teacher_temp": 0.05,
        "method.warmup_teacher_temp": 0.02,
        "method.warmup_teacher_temp_epochs": 4,
        "method.freeze_last_layer_epochs": 3,
        "method.out_dim": 8,
        "data.in_channels": 1,
    }
    recipe = replace(recipe_of_network("swin_micro"), values)
    method = network.build_method(recipe, network.network_to_train(recipe))
    schedule = composition.schedule_of(recipe, method, steps_per_epoch=5)
    assert schedule.total_steps == 40
    for step in range(40):
        now, epoch = schedule.at(step), step // 5
        done = (1 + math.cos(math.pi * (step - 10) / 30)) / 2
        assert now.lr == pytest.approx(0.5 * step / 9 if step < 10 else 0.1 + 0.4 * done, rel=1e-12)
        done = (1 + math.cos(math.pi * step / 40)) / 2
        assert now.weight_decay == pytest.approx(0.7 - 0.5 * done, rel=1e-12)
        assert now.method.ema_momentum == pytest.approx(1 - 0.4 * done, rel=1e-12)
        assert now.method.teacher_temp == pytest.approx(min(0.05, 0.02 + 0.01 * epoch), rel=1e-12)
        assert now.method.freeze_last_layer == (epoch < 3)


def test_labelled_images_come_at_the_size_of_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path / "cache"))
    data = write_labelled_images(tmp_path / "data", per_class=3)
    flag_and_enlarge(data)
    recipe = replace(
        recipe_of_network("swin_tiny"), {"data.probe": str(data), "data.mask_value": 100, "data.sizes": "pad"}
    )
    assert recipe_images.labelled_set(recipe, (1, 50, 48)).images.shape == (4, 1, 50, 48)  # of 6, evaluators judge by 2


def test_the_preprocessing_has_all_that_the_recipe_says() -> None:
    images = np.random.default_rng(0).random((6, 2, 20, 20), np.float32)
    recipe = replace(
        recipe_of_network("swin_tiny"),
        {"data.center_crop": 16, "data.bin": 2, "data.stretch": "log", "data.bands": "joint"},
    )
    recipe = replace(recipe, {"data.mask_value": 100, "data.max_masked": 0.2, "data.sizes": "crop", "data.size": 20})
    built = recipe_images.preprocess(recipe, images, recipe_images.pixel_policy(recipe)).config()
    fitted = fit_preprocess(
        images,
        center_crop=16,
        bin=2,
        stretch="log",
        bands="joint",
        policy=PixelPolicy(100, 0.2, "crop", (20, 20)),
    )
    assert built == fitted.config()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_takes_a_step(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As shipped but for its data (a few simulated or random images), batch and length."""
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("ssl_lens.recipe.monitors.MOST_SAMPLED", 2)  # or watching would take longer than the step
    small = ["simulate.count_per_class=2", "optim.epochs=1", "optim.warmup_epochs=0", "optim.batch_size=4"]
    small += [f"run.folder={tmp_path / 'run'}", "run.device=cpu", "optim.accumulate=1", "optim.precision=no"]
    try:
        pretraining = composition.compose(load_recipe(path, small))
        before = [parameter.detach().clone() for parameter in pretraining.method.trained.parameters()]
        pretraining.run()
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    after = list(pretraining.method.trained.parameters())
    assert all(parameter.isfinite().all() for parameter in after)
    assert any(not torch.equal(b, a) for b, a in zip(before, after, strict=True))


def test_training_begins_with_the_weights_that_are_named(tmp_path: Path) -> None:
    """From a file, the heads staying as the seed has them; of another network they are refused."""
    values = {"model.name": "resnet_micro", "method.out_dim": 8, "method.head_hidden_dim": 8, "data.in_channels": 1}
    recipe = replace(DEFAULT, values | {"method.ema_momentum": 0.9})
    torch.manual_seed(5)
    theirs = network.backbone(recipe, 1).state_dict()
    torch.save(theirs, tmp_path / "theirs.pth")
    fresh = network.build_method(recipe, network.network_to_train(recipe))
    named = replace(recipe, {"model.weights": str(tmp_path / "theirs.pth")})
    started = network.build_method(named, network.network_to_train(named))
    assert all(torch.equal(value, theirs[key]) for key, value in started.student.backbone.state_dict().items())
    assert all(map(torch.equal, started.student.view_head.parameters(), fresh.student.view_head.parameters()))
    with pytest.raises(InputError, match="theirs.pth holds the weights of another network"):
        network.network_to_train(replace(named, {"model.width": 16}))
