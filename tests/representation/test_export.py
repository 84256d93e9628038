import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_run import STEM, write_run
from torch import Tensor, nn

import ssl_lens
from ssl_lens.backbones.backbone import Backbone
from ssl_lens.data.pixels.policy import PixelPolicy
from ssl_lens.data.pixels.preprocess import fit_preprocess
from ssl_lens.errors import InputError
from ssl_lens.representation import export as export_module
from ssl_lens.representation.export import (
    ONNX,
    WEIGHTS,
    FrozenBackbone,
    export,
    load_backbone,
    load_preprocess,
    onnx_difference,
    untrained_backbone,
    write_export,
    write_onnx,
)

RAW = torch.from_numpy(np.random.default_rng(2).gamma(2.0, 1e-12, (3, 1, 40, 40)).astype(np.float32))
NOT_NEEDED = "e2cnn pydantic lightly accelerate faiss sklearn matplotlib lenstronomy astropy h5py tifffile ruamel onnx "
NOT_NEEDED += "onnxruntime"


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("plain") / "run")


@pytest.fixture(scope="module")
def steerable_run(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("steerable") / "run", STEM)


@pytest.fixture(scope="module")
def exported(steerable_run) -> Path:
    """The export of the steerable run, whose own check has passed."""
    out = steerable_run.parent / "export"
    check = export(steerable_run, out)
    assert check.weights <= 1e-5
    assert check.onnx is None or check.onnx <= 1e-5
    return out


def test_a_run_gives_its_teacher_frozen(plain_run):
    frozen = ssl_lens.load_backbone(plain_run)
    teacher = load_file(plain_run / "checkpoints" / "step_00000003" / "teacher.safetensors")
    for name, value in frozen.backbone.state_dict().items():
        torch.testing.assert_close(value, teacher[f"backbone.{name}"], rtol=0, atol=0)
    view, regions = frozen(RAW.clone().requires_grad_())
    assert not view.requires_grad
    assert view.shape == (3, 96)
    assert regions.shape == (3, 16, 96)
    assert [tuple(stage.shape) for stage in frozen.stages(RAW)] == [(3, 48, 8, 8), (3, 96, 4, 4)]
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


def test_a_frozen_backbone_refuses_to_train(plain_run):
    frozen = load_backbone(plain_run)
    with pytest.raises(RuntimeError, match="does not train"):
        frozen.train()
    assert not any(module.training for module in frozen.eval().modules())


def test_export_is_folded_and_gives_the_runs_features(steerable_run, exported):
    own, loaded = load_backbone(steerable_run), load_backbone(exported)
    assert loaded.backbone.stem.folded
    expected, features = own(RAW), loaded(RAW)
    assert expected.view.std() > 0.1
    torch.testing.assert_close(features.view, expected.view, rtol=0, atol=1e-5)
    torch.testing.assert_close(features.regions, expected.regions, rtol=0, atol=1e-5)


def test_onnx_takes_any_number_of_raw_images(steerable_run, exported):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(exported / ONNX, providers=["CPUExecutionProvider"])
    expected = load_backbone(steerable_run)(RAW)
    for count in (1, 3):
        view, regions = session.run(["view_features", "region_features"], {"images": RAW[:count].numpy()})
        np.testing.assert_allclose(view, expected.view[:count], rtol=0, atol=1e-5)
        np.testing.assert_allclose(regions, expected.regions[:count], rtol=0, atol=1e-5)


def test_an_export_loads_with_torch_timm_numpy_and_safetensors_alone(exported):
    code = f"""
import sys
sys.modules.update(dict.fromkeys({NOT_NEEDED.split()!r}))  # importing one of these now fails
import torch, ssl_lens
print(ssl_lens.load_backbone({str(exported)!r})(torch.full((1, 1, 40, 40), 1e-12)).view.sum().item())
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    expected = load_backbone(exported)(torch.full((1, 1, 40, 40), 1e-12)).view.sum().item()
    assert float(process.stdout) == pytest.approx(expected, abs=1e-4)


class Means(Backbone):
    """The simplest backbone: means of 4 x 4 pixels."""

    accepted_sizes = "any"

    def stages(self, images: Tensor) -> list[Tensor]:
        return [nn.functional.avg_pool2d(images, 4)]

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        return height // 4, width // 4

    def config(self) -> dict[str, object]:
        return {}


@pytest.mark.parametrize(
    ("stretch", "bands"),
    [("none", "joint"), ("asinh", "per_band"), ("log", "joint"), ("percentile", "per_band"), ("zscale", "joint")],
)
def test_onnx_stretches_and_fills(tmp_path, stretch, bands):
    images = np.random.default_rng(3).gamma(2.0, 1e-12, (20, 2, 12, 12)).astype(np.float32)
    policy = PixelPolicy(mask_value=100)
    fitted = fit_preprocess(images, center_crop=8, bin=1, stretch=stretch, bands=bands, policy=policy)
    frozen = FrozenBackbone(fitted, Means(in_channels=2, embed_dim=2, reduction=1))
    raw = torch.from_numpy(images[:4]).clone()
    write_onnx(frozen, raw, tmp_path / ONNX)
    assert onnx_difference(tmp_path / ONNX, raw, frozen(raw)) <= 1e-5
    flagged, sky = raw.clone(), raw.clone()
    for place, value in (((0, 0, 5, 5), 100), ((0, 1, 3, 7), np.nan), ((1, 1, 4, 6), -np.inf)):
        flagged[place], sky[place] = value, float(np.median(images[:, place[1]]))
    assert onnx_difference(tmp_path / ONNX, flagged, frozen(sky)) <= 1e-5
    assert (frozen(sky).view - frozen(raw).view)[:2].abs().max() > 1e-3


def test_the_pixel_policy_travels_with_runs_and_exports(tmp_path):
    policy = ["data.mask_value=100", "data.max_masked=0.2", "data.sizes=crop"]
    run = write_run(tmp_path / "run", "data.stretch=log", "data.bands=joint", *policy, channels=2)
    export(run, tmp_path / "out")
    expected = PixelPolicy(100, 0.2, "crop", (40, 40))
    for folder in (run, tmp_path / "out"):
        assert load_preprocess(folder).policy == load_backbone(folder).preprocess.policy == expected
        assert load_preprocess(folder).config() == load_preprocess(run).config()
    raw = torch.cat([RAW, 2 * RAW], dim=1)
    raw[0, 0, 20, 20], raw[1, 1, 20, 20] = 100, np.nan
    features = load_backbone(run)(raw)
    assert features.view.isfinite().all()
    assert torch.equal(load_backbone(tmp_path / "out")(raw).view, features.view)
    with pytest.raises(InputError, match="neither a run .* nor an export"):
        load_preprocess(tmp_path)


@pytest.mark.parametrize("part", ["onnx_difference", "_difference"])
def test_an_export_that_differs_or_gives_nan_is_refused(plain_run, tmp_path, monkeypatch, part):
    monkeypatch.setattr(export_module, "write_onnx", lambda *arguments: None)
    monkeypatch.setattr(export_module, "onnx_difference", lambda *arguments: None)
    for difference in (2e-5, float("nan")):
        monkeypatch.setattr(export_module, part, lambda *arguments, difference=difference: difference)
        with pytest.raises(RuntimeError, match="differs from its source"):
            write_export(load_backbone(plain_run), tmp_path / "out", (40, 40))


def test_untrained_networks_are_seeded_and_not_the_trained_one(plain_run):
    first, again, other = (untrained_backbone(plain_run, seed=seed) for seed in (0, 0, 1))
    name = "patch_embed.proj.weight"
    trained = load_backbone(plain_run).backbone.state_dict()[name]
    assert torch.equal(first.state_dict()[name], again.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], trained)


def test_an_export_starts_afresh_with_steerable_filters(exported):
    fresh, again = (untrained_backbone(exported, seed=0) for _ in range(2))
    assert not fresh.stem.folded
    filters = [network.stem.layers[0].conv.filter() for network in (fresh, again)]
    assert torch.equal(*filters)
    assert filters[0].std() > 0.01


def test_neither_run_nor_export(tmp_path):
    with pytest.raises(InputError, match="neither a run .* nor an export"):
        load_backbone(tmp_path)
    with pytest.raises(InputError, match="neither a run"):
        export(tmp_path / "nowhere", tmp_path / "out")


def test_a_run_without_checkpoint(tmp_path):
    run = write_run(tmp_path / "run")
    (run / "checkpoints" / "step_00000003" / "teacher.safetensors").write_bytes(b"cut off")
    with pytest.raises(InputError, match="no intact checkpoint"):
        load_backbone(run)


def test_a_checkpoint_of_another_network(tmp_path):
    run, other = write_run(tmp_path / "run"), write_run(tmp_path / "other", "model.patch_size=2")
    (run / "recipe.yaml").write_text((other / "recipe.yaml").read_text())
    with pytest.raises(InputError, match="checkpoint of another network"):
        load_backbone(run)


def test_export_onto_a_file(plain_run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        export(plain_run, tmp_path / "file")


@pytest.mark.parametrize(
    "damage",
    ["config cut off", "config of something else", "preprocessing other", "weights missing", "weights other"],
)
def test_a_damaged_export_is_one_line(exported, tmp_path, damage):
    for name in ("config.json", WEIGHTS):
        (tmp_path / name).write_bytes((exported / name).read_bytes())
    match damage:
        case "config cut off":
            (tmp_path / "config.json").write_text('{"backbone": ')
        case "config of something else":
            (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
        case "preprocessing other":
            config = json.loads((exported / "config.json").read_text())
            del config["preprocess"]["sky"]
            (tmp_path / "config.json").write_text(json.dumps(config))
        case "weights missing":
            (tmp_path / WEIGHTS).unlink()
        case "weights other":
            save_file({"weight": torch.zeros(3)}, tmp_path / WEIGHTS)
    with pytest.raises(InputError) as error:
        load_backbone(tmp_path)
    assert "\n" not in str(error.value)
