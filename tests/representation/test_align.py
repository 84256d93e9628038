"""`ssl-lens align`: a backbone with a linear map as its last layer, through every command that uses one."""

import csv
import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import ssl_lens
from ssl_lens.cli import main as cli
from ssl_lens.cli.align import KEPT
from ssl_lens.errors import InputError
from ssl_lens.recipe.fit import fit
from ssl_lens.representation import export as export_module
from ssl_lens.representation.align import align
from ssl_lens.representation.alignment import Keep
from ssl_lens.representation.frozen import FrozenBackbone, load_backbone
from ssl_lens.representation.pooling import pooled

SIZE, LENSES = 40, 40


def ring(rng: np.random.Generator, radius: float, brightness: float) -> np.ndarray:
    """A ring of knots, which lie anywhere; only the radius belongs to the lens."""
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    knots = 1 + 0.8 * np.cos(2 * (np.arctan2(y, x) - rng.uniform(0, np.pi)))
    image = brightness * knots * np.exp(-((np.hypot(x, y) - radius) ** 2) / 6)
    return (image + rng.normal(0, 0.05, (SIZE, SIZE))).astype(np.float32)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Renderings of lenses, another telescope's images in two classes of radius, and a fixed backbone for these."""
    folder, rng = tmp_path_factory.mktemp("sets"), np.random.default_rng(0)
    (folder / "pairs").mkdir()
    with (folder / "pairs" / "parameters.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["name", "lens_number", "rendering"])
        for lens in range(LENSES):
            radius = rng.uniform(6, 12)
            for rendering in range(2):
                name = f"{lens}_{rendering}.npy"
                np.save(folder / "pairs" / name, ring(rng, radius, rng.uniform(0.5, 2)))
                table.writerow([name, 1000 + lens, rendering])
    for label, radius in (("near", 8.0), ("wide", 10.0)):
        (folder / "images" / label).mkdir(parents=True)
        for i in range(20):
            np.save(folder / "images" / label / f"{i:02d}.npy", 100 * ring(rng, radius, rng.uniform(0.5, 2)))
    with pytest.MonkeyPatch.context() as monkeypatch:  # ONNX takes seconds; here that of the map is what counts
        monkeypatch.setattr(export_module, "write_onnx", lambda *arguments: None)
        monkeypatch.setattr(export_module, "onnx_difference", lambda *arguments: None)
        fit("lens_wavelets", folder / "fixed", data=folder / "images", pooling="log_rings")
    align(folder / "fixed", folder / "aligned", pairs=folder / "pairs", data=folder / "images")
    return folder


def raw(sets: Path) -> torch.Tensor:
    files = sorted((sets / "images").rglob("*.npy"))
    return torch.from_numpy(np.stack([np.load(file) for file in files]))[:, None]


def test_features_are_the_mapped_ones_of_the_images_own_numbers(sets):
    fixed, aligned = load_backbone(sets / "fixed"), load_backbone(sets / "aligned")
    features = pooled(fixed.backbone, fixed.prepare(raw(sets)), "log_rings")
    mean, scale = features.mean(dim=0), features.std(dim=0, correction=0)
    assert aligned.alignment is not None
    expected = ((features - mean) / scale) @ aligned.alignment.directions
    torch.testing.assert_close(aligned(raw(sets)).features, expected, rtol=1e-3, atol=1e-3)
    assert torch.equal(aligned.features(raw(sets)), aligned(raw(sets)).features)
    assert torch.equal(aligned(raw(sets)).view, fixed(raw(sets)).view)
    assert torch.equal(
        load_backbone(sets / "aligned", pooling="log_rings")(raw(sets)).features, fixed(raw(sets)).features
    )


def test_the_leading_direction_is_the_radius_that_renderings_share(sets):
    """Along it the classes lie apart by several of their scatters, and images of one class agree."""
    near, wide = load_backbone(sets / "aligned")(raw(sets)).features[:, 0].split(20)
    assert abs(near.mean() - wide.mean()) > 4 * max(near.std(), wide.std())


def test_half_precision_and_moves_leave_the_map_as_it_is(sets):
    aligned = load_backbone(sets / "aligned")
    before = aligned.alignment.directions.clone()
    half = aligned.to(torch.bfloat16)
    assert torch.equal(half.alignment.directions, before)
    assert half(raw(sets)).features.dtype == half(raw(sets)).view.dtype


def test_a_fit_to_other_images_standardises_the_features_anew(sets, tmp_path, no_onnx):
    brighter = tmp_path / "brighter"
    for file in (sets / "images").rglob("*.npy"):
        (brighter / file.parent.name).mkdir(parents=True, exist_ok=True)
        np.save(brighter / file.parent.name / file.name, 50 * np.load(file) + 3)
    fit(sets / "aligned", tmp_path / "again", data=brighter)
    ours, theirs = load_backbone(sets / "aligned"), load_backbone(tmp_path / "again")
    expected = ours(raw(sets)).features
    torch.testing.assert_close(theirs(50 * raw(sets) + 3).features, expected, rtol=1e-2, atol=1e-2)


def test_what_a_file_excludes_does_not_reach_the_numbers(sets, tmp_path, no_onnx):
    """Half of the images, of one class, are left out: the mean of the others' features is 0."""
    (tmp_path / "names.txt").write_text("\n".join(f"wide/{i:02d}.npy" for i in range(20)))
    align(
        sets / "fixed",
        tmp_path / "out",
        pairs=sets / "pairs",
        data=sets / "images",
        exclude=tmp_path / "names.txt",
    )
    near, wide = load_backbone(tmp_path / "out")(raw(sets)).features.split(20)
    scale = near.std(dim=0)
    assert (near.mean(dim=0).abs() < 1e-2 * scale).all()
    assert wide[:, 0].mean().abs() > 4 * scale[0]


def test_a_saved_probe_predicts_by_the_mapped_features(sets, tmp_path, no_onnx):
    results = ssl_lens.evaluate(
        sets / "aligned", data=sets / "images", probes=["ridge"], labels_per_class=[8], seeds=1, save=tmp_path / "saved"
    )
    accuracy = next(row.value for row in results.table if row.metric == "accuracy")
    assert accuracy == 1
    ssl_lens.predict(tmp_path / "saved", sets / "images", tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40
    said = [row["class"] for row in rows]
    assert said == [row["name"].partition("/")[0] for row in rows]


def test_the_command_says_what_it_found(sets, tmp_path, capsys, no_onnx):
    arguments = ["--pairs", str(sets / "pairs"), "--data", str(sets / "images")]
    assert cli.main(["align", str(sets / "aligned"), str(tmp_path / "out"), *arguments]) == 0
    said = capsys.readouterr().out
    assert "of 150 directions are shared by their renderings, signal to noise" in said
    assert "; 150 are kept\n" in said
    assert torch.equal(  # the map that was there is replaced, not put in front
        load_backbone(tmp_path / "out")(raw(sets)).features, load_backbone(sets / "aligned")(raw(sets)).features
    )


def test_the_shared_directions_alone_are_the_first_of_all(sets, tmp_path, capsys, no_onnx):
    arguments = ["--pairs", str(sets / "pairs"), "--data", str(sets / "images"), "--keep", "shared"]
    assert cli.main(["align", str(sets / "fixed"), str(tmp_path / "out"), *arguments]) == 0
    shared = load_file(tmp_path / "out" / "alignment.safetensors")["directions"]
    assert f"40 lenses: {shared.shape[1]} of 150 directions are shared" in capsys.readouterr().out
    assert 1 <= shared.shape[1] < 100
    everything = load_file(sets / "aligned" / "alignment.safetensors")["directions"]
    assert torch.equal(shared, everything[:, : shared.shape[1]])


def test_what_may_be_kept_is_what_there_is():
    assert get_args(Keep) == KEPT


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--pairs", "IMAGES"], "--column=lens_number is not a number in the table of the images, which has none"),
        (["--column", "rendering"], "--column"),
        (
            ["--column", "redshift"],
            "--column=redshift is not a number in the table of the images, which has lens_number",
        ),
        (["--pairs", "nowhere"], "nowhere does not exist"),
        (["--data", "nowhere"], "nowhere does not exist"),
    ],
)
def test_what_cannot_be_is_one_line(sets, tmp_path, capsys, arguments, line):
    arguments = [str(sets / "images") if word == "IMAGES" else word for word in arguments]
    given = ["--pairs", str(sets / "pairs"), "--data", str(sets / "images"), *arguments]
    assert cli.main(["align", str(sets / "fixed"), str(tmp_path / "out"), *given]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: ")
    if arguments[-1] == "rendering":
        line = "2 lenses of 40 or more renderings given"
    assert line in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["missing", "shape", "nan", "scale", "type"])
def test_a_damaged_map_is_refused(sets, tmp_path, damage):
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in (sets / "aligned").iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    numbers = load_file(copy / "alignment.safetensors")
    match damage:
        case "shape":
            numbers["mean"] = numbers["mean"][:-1].clone()
        case "nan":
            numbers["directions"][0, 0] = torch.nan
        case "scale":
            numbers["scale"][3] = 0
        case "type":
            numbers["mean"] = numbers["mean"].int()
    save_file(numbers, copy / "alignment.safetensors")
    if damage == "missing":
        (copy / "alignment.safetensors").unlink()
    with pytest.raises(InputError, match=r"alignment\.safetensors"):
        load_backbone(copy)


def test_an_export_says_whether_it_is_aligned(sets):
    for name in ("fixed", "aligned"):
        assert json.loads((sets / name / "config.json").read_text())["aligned"] == (name == "aligned")
    assert isinstance(load_backbone(sets / "fixed"), FrozenBackbone)
    assert load_backbone(sets / "fixed").alignment is None
