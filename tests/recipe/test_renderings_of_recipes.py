"""Pretraining on renderings: simulated or from a folder, with fixed features that are computed once."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from stopping import Stopped

from ssl_lens.backbones.lens_mlp import LensMLP
from ssl_lens.errors import InputError
from ssl_lens.recipe import start as starting
from ssl_lens.recipe.compose import Pretraining
from ssl_lens.recipe.fit import fit
from ssl_lens.recipe.images import image_source
from ssl_lens.recipe.recipe import load_recipe
from ssl_lens.representation.frozen import adapt, load_backbone, untrained_backbone
from ssl_lens.representation.pooling import pool_maps

RENDERED = (
    "data.renderings=lens_number",
    "views={policy: renderings, global_size: 24, local_sizes: [], local_counts: []}",
    "model={name: lens_mlp, octaves: 2, width: 8}",
    "method={view_weight: 1, region_weight: 0, out_dim: 8, head_hidden_dim: 8, head_bottleneck_dim: 4, "
    "centering: sinkhorn}",
    "features.pooling=joined",
)


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    """24 objects of 24 px with two noisy images each."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "pairs"
    folder.mkdir()
    rows = ["name,lens_number"]
    y, x = np.mgrid[-12:12, -12:12] + 0.5
    for lens in range(24):
        ring = np.exp(-((np.hypot(x, y) - rng.uniform(4, 9)) ** 2) / 4)
        for i in range(2):
            image = rng.uniform(2, 4) * ring + rng.normal(0, 0.3, ring.shape)
            np.save(folder / f"{lens:02d}_{i}.npy", image.astype(np.float32)[None])
            rows.append(f"{lens:02d}_{i}.npy,{lens}")
    (folder / "targets.csv").write_text("\n".join(rows) + "\n")
    return f"data.path={folder}"


def weights(pretraining: Pretraining) -> dict[str, torch.Tensor]:
    return pretraining.method.state_dict()


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images the fixed part of the network has looked at, call by call."""
    counts: list[int] = []
    look = LensMLP.fixed_features

    def counted(self: LensMLP, images: torch.Tensor) -> torch.Tensor:
        counts.append(len(images))
        return look(self, images)

    monkeypatch.setattr(LensMLP, "fixed_features", counted)
    return counts


def test_each_image_is_looked_at_once_and_training_is_as_if_it_were_not(
    run: Callable[..., Pretraining], pairs: str, looks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = run("kept", pairs, *RENDERED)
    assert sum(looks) == 48
    assert len(kept.names) == 24

    def kept_by_nobody(recipe, trunk, preprocess, raw, size):
        adapt(trunk, preprocess, raw)

    monkeypatch.setattr(starting, "_kept_features", kept_by_nobody)
    looked = run("looked", pairs, *RENDERED)
    ours, theirs = weights(kept), weights(looked)
    assert ours.keys() == theirs.keys()
    assert max(float((ours[key] - theirs[key]).abs().max()) for key in ours) < 1e-4
    began = untrained_backbone(kept.folder.root).state_dict()
    moved = {key: value for key, value in kept.method.backbone.state_dict().items() if "layers" in key}
    assert min(float((moved[key] - began[key]).abs().max()) for key in moved) > 1e-3


def test_views_that_change_are_not_kept(run: Callable[..., Pretraining], pairs: str) -> None:
    shaken = [*RENDERED, "views={policy: lens_safe, global_size: 20, local_sizes: [], local_counts: []}"]
    whole = run("shaken", pairs, *shaken)
    assert whole.features is None
    assert whole.method.backbone.mean.abs().max() > 0  # the domain is known all the same
    began = untrained_backbone(whole.folder.root)
    assert (whole.method.backbone.layers[0].weight - began.layers[0].weight).abs().max() > 1e-3


def test_a_resumed_run_is_the_same(run: Callable[..., Pretraining], pairs: str, stopped_in_step_3: Stopped) -> None:
    whole = run("whole", pairs, *RENDERED)
    with stopped_in_step_3():
        run("parts", pairs, *RENDERED)
    parts = run("parts", pairs, *RENDERED, "run.resume=auto")
    assert parts.start > 0
    assert all(torch.equal(weights(whole)[key], weights(parts)[key]) for key in weights(whole))


@pytest.mark.usefixtures("no_onnx")
def test_the_run_says_what_its_features_are_and_a_fit_changes_their_domain(
    run: Callable[..., Pretraining], pairs: str, tmp_path: Path
) -> None:
    """`joined` is what the recipe asks for: log_rings of the wavelets, then the view."""
    root = run("joined", pairs, *RENDERED).folder.root
    folder = Path(pairs.removeprefix("data.path="))
    raw = torch.from_numpy(np.stack([np.load(path) for path in sorted(folder.glob("*.npy"))]))
    frozen = load_backbone(root)
    assert frozen.pooling == "joined"
    with torch.no_grad():
        stages = frozen.backbone.stages(frozen.prepare(raw))
    fixed = pool_maps(stages[:-1], "log_rings")
    torch.testing.assert_close(frozen(raw).features, torch.cat([fixed, frozen(raw).view], dim=1))
    assert torch.equal(frozen.features(raw), frozen(raw).features)

    smooth = tmp_path / "smooth"  # whose wavelets see less, whatever the levels of the pixels are
    smooth.mkdir()
    blurred = torch.nn.functional.avg_pool2d(raw, 3, stride=1, padding=1)
    for i, image in enumerate(blurred):
        np.save(smooth / f"{i:02d}.npy", image.numpy())
    fit(root, tmp_path / "fitted", data=smooth)
    fitted = load_backbone(tmp_path / "fitted")
    features = fitted.backbone.fixed_features(fitted.prepare(blurred))
    torch.testing.assert_close(fitted.backbone.mean, features.mean(0))
    assert (fitted.backbone.mean - frozen.backbone.mean).abs().max() > 0.1
    assert fitted.pooling == "joined"
    assert torch.equal(fitted.backbone.layers[0].weight, frozen.backbone.layers[0].weight)
    assert torch.equal(untrained_backbone(tmp_path / "fitted").mean, fitted.backbone.mean)
    assert frozen.backbone.mean.equal(load_backbone(root).backbone.mean)


def test_images_of_one_rendering_are_refused_where_views_would_be_equal(
    run: Callable[..., Pretraining], pairs: str
) -> None:
    alone = [text for text in RENDERED if not text.startswith("data.")]
    with pytest.raises(InputError, match="views.policy=renderings leaves images as they are.* data.renderings=COLUMN"):
        run("alone", pairs, *alone)


def test_ranges_that_are_given_come_before_the_wide_ones_and_deeplenses(tmp_path: Path) -> None:
    given = ["simulate.as_deeplense=true", "simulate.randomised=true", "simulate.set={shear: [0.01, 0.02]}"]
    simulate = load_recipe("esvit_micro", given).simulate
    assert simulate.set.shear == (0.01, 0.02)
    assert (simulate.set.einstein_radius_arcsec, simulate.set.noise) == ((0.7, 1.6), "deeplense")
    alone = load_recipe("esvit_micro", ["simulate.as_deeplense=true"]).simulate.set
    assert (alone.einstein_radius_arcsec, alone.noise, alone.subhalo_slope) == (None, "deeplense", (-0.9, -0.9))
    assert load_recipe("esvit_micro").simulate.set.einstein_radius_arcsec is None
    (tmp_path / "again.yaml").write_text(load_recipe("esvit_micro", given).to_yaml())
    assert load_recipe(tmp_path / "again.yaml").simulate == simulate


def test_a_recipe_simulates_renderings_and_takes_those_of_a_lens_together() -> None:
    source = image_source(load_recipe("lenses_minute", ["simulate.count_per_class=2", "simulate.redraw=[source]"]))
    assert (len(source), source.renderings, source.shape) == (6, 2, (1, 64, 64))
    assert source.names[0] == "axion/axion_000000_0.npy"
    first, second = (source.sample()[i].mean() for i in (0, 1))
    assert first != second
    assert image_source(load_recipe("esvit_micro", ["simulate.count_per_class=2"])).renderings == 1


def test_a_column_that_is_not_there_is_named_by_its_key(run: Callable[..., Pretraining], pairs: str) -> None:
    with pytest.raises(InputError, match="data.renderings=redshift is not a number in the table of the images"):
        run("a", pairs, *RENDERED, "data.renderings=redshift")
