"""A backbone fitted to the images of another telescope: `ssl-lens fit`."""

import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from tiny_run import write_run

from ssl_lens.cli import fit as command
from ssl_lens.cli import main as cli
from ssl_lens.data.pixels.stretch import Kind
from ssl_lens.recipe.fit import fit
from ssl_lens.representation.frozen import load_backbone

pytestmark = pytest.mark.usefixtures("no_onnx")


def lenses(folder: Path, *, level: float, size: int = 48, count: int = 12, channels: int = 1) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        np.save(folder / f"{i:02d}.npy", level * rng.gamma(2.0, 1.0, (channels, size, size)).astype(np.float32))
    return folder


def raw(folder: Path) -> torch.Tensor:
    return torch.from_numpy(np.stack([np.load(path) for path in sorted(folder.rglob("*.npy"))]))


def test_a_run_sees_images_of_another_level_as_its_own(tmp_path):
    """Ten times as bright pixels with ten times the scatter: without the fit the network sees other images."""
    run = write_run(tmp_path / "run")  # images of 40 px and a level of 1e-12
    bright = lenses(tmp_path / "bright", level=1e-2)
    faint = lenses(tmp_path / "faint", level=1e-5)
    for name, folder in (("a", bright), ("b", faint)):
        fit(run, tmp_path / name, data=folder)
    trained, first, second = (load_backbone(path) for path in (run, tmp_path / "a", tmp_path / "b"))
    seen = first.prepare(raw(bright))
    assert seen.mean().item() == pytest.approx(0, abs=1e-3)
    assert seen.std().item() == pytest.approx(1, abs=1e-2)
    torch.testing.assert_close(second(raw(faint)).features, first(raw(bright)).features, rtol=1e-3, atol=1e-3)
    assert (trained(raw(faint)).features - first(raw(bright)).features).abs().max() > 0.1
    for key, value in trained.backbone.state_dict().items():
        assert torch.equal(value, first.backbone.state_dict()[key])
    assert torch.equal(trained.fitted(raw(bright).numpy())(raw(bright)).features, first(raw(bright)).features)


def test_a_network_without_weights_needs_nothing_else(tmp_path, capsys):
    images = lenses(tmp_path / "images", level=3.0)
    arguments = ["--data", str(images), "--center-crop", "44", "--bin", "2", "--stretch", "asinh"]
    assert cli.main(["fit", "lens_wavelets", str(tmp_path / "out"), *arguments, "--pooling", "log_rings"]) == 0
    said = capsys.readouterr()
    assert f"{tmp_path / 'out'}: features differ from the source's by" in said.out
    assert "not trained" not in said.err
    frozen = load_backbone(tmp_path / "out")
    assert frozen.pooling == "log_rings"
    config = frozen.preprocess.config()
    assert (config["center_crop"], config["bin"], config["stretch"]["kind"]) == (44, 2, "asinh")
    assert frozen(raw(images)).features.shape == (12, 2 * (7 * 6 + 3 * 5 + 3 * 3))
    assert json.loads((tmp_path / "out" / "config.json").read_text())["image_size"] == [48, 48]


def test_what_a_set_holds_out_or_a_file_names_does_not_reach_the_fit(tmp_path):
    lenses(tmp_path / "set" / "train", level=1.0)
    lenses(tmp_path / "set" / "test", level=1e6)
    fit("lens_wavelets", tmp_path / "out", data=tmp_path / "set")
    assert load_backbone(tmp_path / "out").preprocess.std.item() == pytest.approx(2**0.5, rel=0.05)
    (tmp_path / "names.txt").write_text("\n".join(f"test/{i:02d}.npy" for i in range(12)))
    (tmp_path / "set" / "test").rename(tmp_path / "set" / "bright")
    names = (tmp_path / "names.txt").read_text().replace("test/", "bright/")
    (tmp_path / "names.txt").write_text(names)
    fit("lens_wavelets", tmp_path / "again", data=tmp_path / "set", exclude=tmp_path / "names.txt")
    assert load_backbone(tmp_path / "again").preprocess.std.item() == pytest.approx(2**0.5, rel=0.05)


def test_changes_to_a_network_reach_it(tmp_path):
    images = lenses(tmp_path / "images", level=1.0)
    changes = ["model.stages=2", "model.pooling=lens_frame", "data.bin=2", "seed=3"]
    assert cli.main(["fit", "eqcvt_invariant", str(tmp_path / "out"), *changes, "--data", str(images)]) == 0
    frozen = load_backbone(tmp_path / "out")
    assert frozen.preprocess.config()["bin"] == 2
    assert [maps.shape[1:] for maps in frozen.backbone.stages(torch.zeros(1, 1, 24, 24))] == [
        (24, 24, 24),
        (36, 12, 12),
    ]


def test_random_weights_are_said_to_be_random(tmp_path, caplog):
    fit("resnet_micro", tmp_path / "out", data=lenses(tmp_path / "images", level=1.0))
    assert "resnet_micro is not trained: its weights are random" in caplog.text


@pytest.mark.parametrize(
    ("target", "arguments", "line"),
    [
        ("lens_wavelet", [], "lens_wavelet' is unknown; the nearest are lens_wavelets"),
        ("lens_wavelets", ["--center-crop", "99"], "--center-crop=99 exceeds the images of 48x48 px"),
        ("lens_wavelets", ["--bin", "60"], "--bin=60 leaves no pixel of 48x48 px"),
        ("lens_wavelets", ["--stretch", "sqrt"], "--stretch: invalid choice: 'sqrt'"),
        ("lens_wavelets", ["--data", "nowhere"], "nowhere does not exist"),
        ("RUN", ["--data", "COLOURS"], "channels"),
        ("RUN", ["--center-crop", "2"], "image size 2x2 px is not a multiple of patch_size=4"),
        ("RUN", ["data.bin=2"], "data.bin=2 cannot change"),
        ("lens_wavelets", ["model.octave=2"], "unknown key model.octave=2; the nearest valid key is model.octaves"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path, capsys, target, arguments, line):
    images = lenses(tmp_path / "images", level=1.0)
    if target == "RUN":
        target = str(write_run(tmp_path / "run"))
    if "COLOURS" in arguments:
        arguments = ["--data", str(lenses(tmp_path / "colours", level=1.0, channels=3))]
    with pytest.raises(SystemExit) as stop:
        raise SystemExit(cli.main(["fit", target, str(tmp_path / "out"), "--data", str(images), *arguments]))
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert stop.value.code == 2, said
    assert line in said
    assert not (tmp_path / "out").exists()


def test_stretches_are_those_there_are():
    assert get_args(Kind) == command.STRETCHES
