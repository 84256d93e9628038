import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_run import STEM, write_run
from torch import Tensor, nn

from ssl_lens.backbones import catalog
from ssl_lens.backbones.backbone import MapBackbone
from ssl_lens.data.pixels.policy import PixelPolicy
from ssl_lens.data.pixels.preprocess import Preprocess, fit_preprocess
from ssl_lens.errors import InputError
from ssl_lens.representation import export as export_module
from ssl_lens.representation import network_file
from ssl_lens.representation.description import load_preprocess
from ssl_lens.representation.export import (
    ONNX,
    WEIGHTS,
    export,
    onnx_difference,
    write_export,
    write_onnx,
)
from ssl_lens.representation.frozen import FrozenBackbone, load_backbone

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


def test_export_is_folded_and_gives_the_runs_features(steerable_run, exported):
    own, loaded = load_backbone(steerable_run), load_backbone(exported)
    assert loaded.backbone.stem.folded
    expected, features = own(RAW), loaded(RAW)
    assert expected.view.std() > 0.1
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-5)


def test_onnx_takes_any_number_of_raw_images(steerable_run, exported):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(exported / ONNX, providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["features", "view", "regions"]
    expected = load_backbone(steerable_run)(RAW)
    for count in (1, 3):
        for ours, theirs in zip(session.run(None, {"images": RAW[:count].numpy()}), expected, strict=True):
            np.testing.assert_allclose(ours, theirs[:count], rtol=0, atol=1e-5)


@pytest.mark.parametrize("pooling", ["view", "stages"])
def test_onnx_gives_other_poolings(plain_run, tmp_path, pooling):
    pytest.importorskip("onnxruntime")
    frozen = load_backbone(plain_run, pooling=pooling)
    write_onnx(frozen, RAW, tmp_path / ONNX)
    assert onnx_difference(tmp_path / ONNX, RAW, frozen(RAW)) <= 1e-5


def test_an_export_loads_with_torch_timm_numpy_and_safetensors_alone(exported):
    code = f"""
import sys
sys.modules.update(dict.fromkeys({NOT_NEEDED.split()!r}))  # importing one of these now fails
import torch, ssl_lens
print(ssl_lens.load_backbone({str(exported)!r})(torch.full((1, 1, 40, 40), 1e-12)).features.sum().item())
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    expected = load_backbone(exported)(torch.full((1, 1, 40, 40), 1e-12)).features.sum().item()
    assert float(process.stdout) == pytest.approx(expected, rel=1e-4)


@pytest.fixture
def without_onnx(monkeypatch) -> None:
    """ONNX takes seconds."""
    monkeypatch.setattr(export_module, "write_onnx", lambda *arguments: None)
    monkeypatch.setattr(export_module, "onnx_difference", lambda *arguments: None)


class Means(MapBackbone):
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


def test_the_pixel_policy_travels_with_runs_and_exports(without_onnx, tmp_path):
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
def test_an_export_that_differs_or_gives_nan_is_refused_and_the_one_before_stays(
    without_onnx, plain_run, tmp_path, monkeypatch, part
):
    frozen = load_backbone(plain_run)
    write_export(frozen, tmp_path / "before", (40, 40))
    (tmp_path / "before" / "eval").mkdir()
    before = {path: path.read_bytes() for path in (tmp_path / "before").iterdir() if path.is_file()}
    assert len(before) == 2
    for difference in (2e-5, float("nan")):
        monkeypatch.setattr(export_module, part, lambda *arguments, difference=difference: difference)
        for out in ("new", "before"):
            with pytest.raises(RuntimeError, match="differs from its source"):
                write_export(frozen, tmp_path / out, (40, 40))
    assert not (tmp_path / "new").exists()
    assert {path: path.read_bytes() for path in (tmp_path / "before").iterdir() if path.is_file()} == before
    assert len(list((tmp_path / "before").iterdir())) == 3


def test_a_new_export_replaces_the_files_of_the_old_one_and_no_others(without_onnx, plain_run, tmp_path):
    (tmp_path / "eval").mkdir()
    for name in ("head.safetensors", "outputs.json", ONNX, "notes.txt", "eval/results.csv"):
        (tmp_path / name).write_text("old")
    write_export(load_backbone(plain_run, pooling="view"), tmp_path, (40, 40))
    there = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert there == {"config.json", WEIGHTS, "notes.txt", "eval/results.csv"}
    assert load_backbone(tmp_path).pooling == "view"


def test_an_export_that_is_interrupted_is_none(without_onnx, plain_run, tmp_path, monkeypatch):
    """The configuration, without which a folder is not an export, goes first and comes last."""
    frozen = load_backbone(plain_run)
    write_export(frozen, tmp_path / "out", (40, 40))
    replace, moved = Path.replace, []

    def killed(self: Path, target: Path) -> Path:
        moved.append(self.name)
        if self.name == "config.json":
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_export(frozen, tmp_path / "out", (40, 40))
    assert moved == [WEIGHTS, "config.json"]
    with pytest.raises(InputError, match="neither a run .* nor an export"):
        load_backbone(tmp_path / "out")


def test_files_are_readable_as_the_umask_says(plain_run, tmp_path):
    before = os.umask(0o027)
    try:
        export(plain_run, tmp_path / "out")
    finally:
        os.umask(before)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"config.json", WEIGHTS, ONNX}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()} == {0o640}


def test_an_export_can_be_exported_again_with_another_pooling(without_onnx, exported, tmp_path):
    check = export(exported, tmp_path / "again", pooling="stats")
    assert check.weights == 0
    features = load_backbone(tmp_path / "again")(RAW).features
    torch.testing.assert_close(features, load_backbone(exported, pooling="stats")(RAW).features, rtol=0, atol=0)
    assert json.loads((tmp_path / "again" / "config.json").read_text())["image_size"] == [40, 40]


def test_export_onto_a_file(plain_run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        export(plain_run, tmp_path / "file")


def damaged(exported: Path, folder: Path, change) -> Path:
    """A copy of an export, with `change` done to its configuration."""
    for name in ("config.json", WEIGHTS):
        (folder / name).write_bytes((exported / name).read_bytes())
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_copied_export_is_whole(exported, tmp_path):
    torch.testing.assert_close(
        load_backbone(damaged(exported, tmp_path, lambda config: None))(RAW),
        load_backbone(exported)(RAW),
        rtol=0,
        atol=0,
    )


@pytest.mark.parametrize(
    "damage",
    [
        "config cut off",
        "config a list",
        "config of something else",
        "weights missing",
        "weights cut off",
        "weights other",
    ],
)
def test_a_damaged_export_is_one_line(exported, tmp_path, damage):
    damaged(exported, tmp_path, lambda config: None)
    match damage:
        case "config cut off":
            (tmp_path / "config.json").write_text('{"backbone": ')
        case "config a list":
            (tmp_path / "config.json").write_text("[1, 2]")
        case "config of something else":
            (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
        case "weights missing":
            (tmp_path / WEIGHTS).unlink()
        case "weights cut off":
            (tmp_path / WEIGHTS).write_bytes((tmp_path / WEIGHTS).read_bytes()[:1000])
        case "weights other":
            save_file({"weight": torch.zeros(3)}, tmp_path / WEIGHTS)
    with pytest.raises(InputError) as error:
        load_backbone(tmp_path)
    assert "\n" not in str(error.value)


HOSTILE = {
    "no sky": lambda config: config["preprocess"].pop("sky"),
    "two skies": lambda config: config["preprocess"].update(sky=[0, 0]),
    "no scatter": lambda config: config["preprocess"].update(std=[0.0]),
    "policy of another kind": lambda config: config["preprocess"].update(policy=[]),
    "two channels": lambda config: config.update(preprocess=Preprocess.plain(2).config()),
    "no pooling": lambda config: config.pop("pooling"),
    "unknown pooling": lambda config: config.update(pooling="__import__"),
    "no architecture": lambda config: config["backbone"].pop("architecture"),
    "unknown architecture": lambda config: config["backbone"].update(architecture="os.system"),
    "unknown argument": lambda config: config["backbone"]["backbone"].update(command="rm"),
    "argument of another type": lambda config: config["backbone"]["backbone"].update(embed_dim="wide"),
    "negative": lambda config: config["backbone"]["backbone"].update(embed_dim=-48),
    "terabytes": lambda config: config["backbone"]["backbone"].update(embed_dim=48_000_000),
    "a million layers": lambda config: config["backbone"]["backbone"].update(depths=[1_000_000, 2]),
    "a stem of terabytes": lambda config: config["backbone"]["stem"].update(fields=10_000_000),
    "another depth": lambda config: config["backbone"]["backbone"].update(depths=[2, 1]),
}


@pytest.mark.parametrize("change", HOSTILE)
def test_a_hostile_configuration_is_one_line_and_allocates_nothing(exported, tmp_path, change):
    folder = damaged(exported, tmp_path, HOSTILE[change])
    start = time.perf_counter()
    with pytest.raises(InputError) as error:
        load_backbone(folder)
    assert "\n" not in str(error.value)
    assert time.perf_counter() - start < 5


LARGER_ONES = {"swin_small", "swin_base", "cvt_21", "resnet34", "resnet50", "crossformer_small"}  # of the same classes


def test_every_network_is_known_without_memory():
    """The check before building knows what each family's folded network is made of."""
    for name in sorted(set(catalog.names()) - LARGER_ONES):
        network = catalog.build_backbone(name, {}, in_channels=1, image_size=64).fold()
        config = json.loads(json.dumps(catalog.backbone_config(network)))
        with (
            torch.device("meta"),
            network_file.at_most({key: value.shape for key, value in network.state_dict().items()}, Path(name)),
        ):
            built = catalog.backbone_from_config(config)
        assert {key: value.shape for key, value in built.state_dict().items()} == {
            key: value.shape for key, value in network.state_dict().items()
        }
