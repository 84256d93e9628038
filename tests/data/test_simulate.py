import csv
import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ssl_lens.data import simulate
from ssl_lens.data.images import load_images
from ssl_lens.data.lens_physics import Telescope
from ssl_lens.data.simulate import default_set, simulate_lenses
from ssl_lens.errors import InputError

_SMALL = {"count_per_class": 4, "image_size": 32, "pixel_scale_arcsec": 0.2, "seed": 7}


def _files(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return simulate_lenses(tmp_path_factory.mktemp("small"), **_SMALL, workers=1)


def test_a_set_loads_with_its_classes(small, tmp_path):
    loaded = load_images(small, cache=tmp_path)
    assert loaded.images.shape == (12, 1, 32, 32)
    assert loaded.classes == ("axion", "cdm", "no_sub")
    assert loaded.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert loaded.names[5] == "cdm/cdm_000001.npy"
    assert len({image.tobytes() for image in loaded.images}) == 12


def test_any_number_of_workers_gives_the_same_bits(small, tmp_path, monkeypatch):
    monkeypatch.setattr(simulate, "_CHUNK", 5)  # so that chunks cross the classes
    simulate_lenses(tmp_path / "set", **_SMALL, workers=2)
    assert _files(tmp_path / "set") == _files(small)


def test_an_image_depends_on_seed_class_and_number_alone(small, tmp_path):
    fewer = _files(simulate_lenses(tmp_path / "fewer", **(_SMALL | {"count_per_class": 2})))
    images = {name: data for name, data in fewer.items() if name.endswith(".npy")}
    assert len(images) == 6
    assert images.items() <= _files(small).items()
    other = _files(simulate_lenses(tmp_path / "other", **(_SMALL | {"count_per_class": 2, "seed": 8})))
    assert all(other[name] != data for name, data in images.items())


def test_an_interrupted_set_continues(small, tmp_path, monkeypatch):
    observe, shots = Telescope.observe, []

    def interrupted(self, lens, rng):
        shots.append(lens)
        if len(shots) == 6:
            raise KeyboardInterrupt
        return observe(self, lens, rng)

    monkeypatch.setattr(Telescope, "observe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        simulate_lenses(tmp_path / "set", **_SMALL, workers=1)
    assert len(list((tmp_path / "set").rglob("*.npy"))) == 5
    assert not (tmp_path / "set" / "parameters.csv").exists()
    simulate_lenses(tmp_path / "set", **_SMALL, workers=1)
    assert len(shots) == 6 + 7
    assert _files(tmp_path / "set") == _files(small)


def test_a_whole_set_is_reused(tmp_path, monkeypatch):
    first = default_set(**_SMALL, cache=tmp_path)
    monkeypatch.setattr(simulate, "_simulate", None)
    assert default_set(**_SMALL, cache=tmp_path) == first
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path))
    assert default_set(**_SMALL) == first


def test_a_write_that_fails_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full(file, _):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(simulate.np, "save", full)
    with pytest.raises(InputError, match=r"cannot write simulated lenses to .*: No space left on device"):
        simulate_lenses(tmp_path / "set", **_SMALL, workers=1)
    assert list(_files(tmp_path / "set")) == ["simulation.json"]


def test_parameters_tell_what_was_drawn(small):
    with (small / "parameters.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [name for name in _files(small) if name.endswith(".npy")]
    assert json.loads((small / "simulation.json").read_text())["seed"] == 7
    for row in rows:
        assert (row["axion_mass_ev"] == "nan") == (row["class"] != "axion")
        mass, radius = float(row["substructure_mass_msun"]), float(row["halo_einstein_radius_arcsec"])
        assert mass == {"axion": pytest.approx(3e10), "no_sub": 0.0}.get(row["class"], mass)
        assert (radius == pytest.approx(1.66452, rel=1e-5)) == (row["class"] == "no_sub")
        assert 1e3 <= float(row["exposure_s"]) <= 10**3.5


def test_trivial_statistics_do_not_tell_the_classes(tmp_path):
    count = 200
    out = simulate_lenses(
        tmp_path / "set", count_per_class=count, image_size=32, pixel_scale_arcsec=0.2, seed=1, workers=1
    )
    loaded = load_images(out, cache=tmp_path)
    images = loaded.images[:, 0]
    sky = np.concatenate([images[:, :2].reshape(len(images), -1), images[:, -2:].reshape(len(images), -1)], axis=1)
    statistics = {
        "total flux": images.sum(axis=(1, 2)),
        "sky level": sky.mean(axis=1),
        "sky noise": sky.std(axis=1),
    }
    # Chance is 0.5 with a standard error of 0.025.
    for name, value in statistics.items():
        for label, kind in enumerate(loaded.classes):
            auc = roc_auc_score(loaded.labels == label, value)
            assert abs(auc - 0.5) < 0.08, f"{name} tells {kind} from the others: AUC {auc:.3f}"
    assert len({path.stat().st_size for path in out.rglob("*.npy")}) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count_per_class": 0}, "count_per_class=0 is too small; set it to 1 or more"),
        ({"seed": -1}, "seed=-1 is too small; set it to 0 or more"),
        ({"pixel_scale_arcsec": 0.1}, r"cuts the lensed arcs; set pixel_scale_arcsec to 0.142 or more"),
        ({"subhalo_slope": -1}, "subhalo_slope=-1 is not possible"),
    ],
)
def test_values_out_of_range(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        simulate_lenses(tmp_path / "set", **(_SMALL | change))
    assert not (tmp_path / "set").exists()


def test_other_folders_are_left_alone(small, tmp_path):
    with pytest.raises(InputError, match="holds a simulation with seed=7, not 8; choose another folder"):
        simulate_lenses(small, **(_SMALL | {"seed": 8}))
    (tmp_path / "mine.npy").write_text("")
    with pytest.raises(InputError, match="holds files that are no simulation"):
        simulate_lenses(tmp_path, **_SMALL)
    assert list(_files(tmp_path)) == ["mine.npy"]
