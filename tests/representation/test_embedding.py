"""Embeddings of a set: rows as extracted, in any kind of file; what stopped goes on."""

import csv
import stat

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tiny_run import write_labelled_images, write_run

from ssl_lens.data.images import load_images
from ssl_lens.errors import InputError
from ssl_lens.representation import embedding as embedding_module
from ssl_lens.representation import export as export_module
from ssl_lens.representation.embedding import Embedding, embed
from ssl_lens.representation.export import write_export
from ssl_lens.representation.extract import extract
from ssl_lens.representation.frozen import load_backbone


@pytest.fixture(autouse=True)
def _small_parts_and_own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(embedding_module, "PART_IMAGES", 4)


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run")


@pytest.fixture
def data(tmp_path):
    """Ten images of two classes; one image has no class, another none of the numbers."""
    folder = write_labelled_images(tmp_path / "data", per_class=5)
    names = [f"{name}/{i:03d}.npy" for name in ("arc", "ring") for i in range(5)]
    lines = [f"{name},{name.split('/')[0]},{i / 8}" for i, name in enumerate(names)]
    lines[3], lines[7] = f"{names[3]},,0.25", f"{names[7]},ring,"
    (folder / "targets.csv").write_text("\n".join(["name,label,mass_msun", *lines]))
    return folder


def test_rows_are_names_labels_numbers_and_the_extracted_features(run, data, tmp_path):
    result = embed(run, data, tmp_path / "new" / "e.parquet", batch_size=3)
    assert result == Embedding(tmp_path / "new" / "e.parquet", 10, 2 * (4 * 48 + 2 * 96))
    table = pq.read_table(result.path)
    images = load_images(data)
    assert table.column_names == ["name", "label", "mass_msun", "vector"]
    assert table["name"].to_pylist() == list(images.names)
    assert table["label"].to_pylist() == ["arc"] * 3 + [None, "arc"] + ["ring"] * 5
    assert table["mass_msun"].to_pylist() == [0, 0.125, 0.25, 0.25, 0.5, 0.625, 0.75, None, 1, 1.125]
    assert str(table.schema.field("vector").type) == f"fixed_size_list<element: float>[{result.dimension}]"
    vectors = np.array(table["vector"].to_pylist(), np.float32)
    np.testing.assert_allclose(vectors, extract(load_backbone(run), images.images), rtol=0, atol=1e-6)
    assert sorted(path.name for path in result.path.parent.iterdir()) == ["e.parquet"]  # and no parts


def test_the_same_as_npy_with_a_table(run, data, tmp_path):
    embed(run, data, tmp_path / "e.parquet")
    embed(run, data, tmp_path / "e.npy")
    table = pq.read_table(tmp_path / "e.parquet")
    vectors = np.load(tmp_path / "e.npy")
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, np.array(table["vector"].to_pylist(), np.float32))
    with (tmp_path / "e.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == table["name"].to_pylist()
    assert [row["label"] or None for row in rows] == table["label"].to_pylist()
    assert [float(row["mass_msun"]) if row["mass_msun"] else None for row in rows] == table["mass_msun"].to_pylist()


def test_the_view_a_pooling_and_an_export(run, data, tmp_path, monkeypatch):
    monkeypatch.setattr(export_module, "write_onnx", lambda *arguments: None)
    monkeypatch.setattr(export_module, "onnx_difference", lambda *arguments: None)
    frozen = load_backbone(run)
    write_export(frozen, tmp_path / "export", (40, 40))
    images = torch.from_numpy(np.asarray(load_images(data).images))
    for target in (run, tmp_path / "export", frozen):
        assert embed(target, data, tmp_path / "e.npy", which="view").dimension == 96
        np.testing.assert_allclose(np.load(tmp_path / "e.npy"), frozen(images).view, rtol=0, atol=1e-5)
        embed(target, data, tmp_path / "e.npy", pooling="stats")
        expected = load_backbone(run, pooling="stats")(images).features
        np.testing.assert_allclose(np.load(tmp_path / "e.npy"), expected, rtol=0, atol=1e-5)


def test_an_unlabelled_set_has_no_labels(run, data, tmp_path):
    (tmp_path / "flat").mkdir()
    for i, file in enumerate(sorted(data.rglob("*.npy"))):
        (tmp_path / "flat" / f"{i}.npy").write_bytes(file.read_bytes())
    embed(run, tmp_path / "flat", tmp_path / "e.parquet")
    table = pq.read_table(tmp_path / "e.parquet")
    assert table.column_names == ["name", "label", "vector"]
    assert table["label"].null_count == 10


@pytest.mark.parametrize("suffix", ["parquet", "npy"])
def test_what_is_killed_goes_on_and_gives_the_same_file(run, data, tmp_path, monkeypatch, suffix):
    embed(run, data, tmp_path / f"whole.{suffix}")
    out, computed = tmp_path / f"e.{suffix}", []
    monkeypatch.setattr(embedding_module, "extract", lambda *a, **k: computed.append(len(a[1])) or extract(*a, **k))
    monkeypatch.setattr(embedding_module, "logger", Killer(after=2))
    with pytest.raises(KeyboardInterrupt):
        embed(run, data, out)
    assert computed == [4, 4]
    assert not out.exists()
    parts = sorted((tmp_path / f"e.{suffix}.parts").iterdir())
    assert len(parts) == 2
    parts[1].write_bytes(parts[1].read_bytes()[:-5])  # of a machine that lost power
    monkeypatch.setattr(embedding_module, "logger", Killer(after=99))
    embed(run, data, out)
    assert computed == [4, 4, 4, 2]
    assert out.read_bytes() == (tmp_path / f"whole.{suffix}").read_bytes()
    assert not parts[0].parent.exists()


class Killer:
    """In place of the logger, that off a terminal says how far the work is."""

    def __init__(self, after: int) -> None:
        self.left = after

    def info(self, *message: object) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("change", "computed_again"), [("nothing", 2), ("pixels", 6), ("weights", 10), ("pooling", 10), ("batch size", 10)]
)
def test_only_parts_of_the_same_pixels_and_network_are_used(run, data, tmp_path, monkeypatch, change, computed_again):
    frozen, computed = load_backbone(run), []
    monkeypatch.setattr(embedding_module, "logger", Killer(after=2))
    with pytest.raises(KeyboardInterrupt):
        embed(frozen, data, tmp_path / "e.npy")
    match change:
        case "pixels":
            np.save(data / "arc" / "002.npy", 2 * np.load(data / "arc" / "002.npy"))
        case "weights":
            with torch.no_grad():
                next(frozen.backbone.parameters()).mul_(2)
        case "pooling":
            frozen.pooling = "rings"
    monkeypatch.setattr(embedding_module, "extract", lambda *a, **k: computed.append(len(a[1])) or extract(*a, **k))
    monkeypatch.setattr(embedding_module, "logger", Killer(after=99))
    embed(frozen, data, tmp_path / "e.npy", batch_size=3 if change == "batch size" else 256)
    assert sum(computed) == computed_again
    expected = extract(frozen, load_images(data).images)
    np.testing.assert_allclose(np.load(tmp_path / "e.npy"), expected, rtol=0, atol=1e-5)


def test_files_are_readable_as_the_umask_says(run, data, tmp_path):
    plain = tmp_path / "plain"
    plain.touch()
    for name in ("e.npy", "e.parquet"):
        embed(run, data, tmp_path / name)
    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("e.npy", "e.csv", "e.parquet", "plain")}
    assert len(set(modes.values())) == 1


@pytest.mark.parametrize(
    ("out", "options", "message"),
    [
        ("e.fits", {}, "ends in .parquet or .npy"),
        ("e", {}, "ends in .parquet or .npy"),
        ("data/e.npy", {}, "lies in .*data, to whose images it would add"),
        ("e.npy", {"which": "regions"}, "which='regions' is unknown; give features or view"),
        ("e.npy", {"which": "view", "pooling": "stats"}, "give one of the two"),
        ("e.npy", {"pooling": "max"}, "pooling='max' is unknown"),
        ("run/recipe.yaml/e.npy", {}, "cannot write"),
    ],
)
def test_what_cannot_be_is_one_line(run, data, tmp_path, out, options, message):
    with pytest.raises(InputError, match=message) as error:
        embed(run, data, tmp_path / out, **options)
    assert "\n" not in str(error.value)


def test_a_number_named_as_the_vectors_is_refused(run, data, tmp_path):
    table = (data / "targets.csv").read_text().replace("mass_msun", "vector")
    (data / "targets.csv").write_text(table)
    with pytest.raises(InputError, match="rename it"):
        embed(run, data, tmp_path / "e.parquet")
    assert not (tmp_path / "e.parquet").exists()
