import csv
import json
import multiprocessing
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ssl_lens.data.folders.own_tables import own_tables
from ssl_lens.data.folders.tables import read_table
from ssl_lens.data.images import load_images
from ssl_lens.errors import InputError
from ssl_lens.files import whole_file
from ssl_lens.simulation import sets as simulate
from ssl_lens.simulation import settings
from ssl_lens.simulation.instrument import instrument
from ssl_lens.simulation.lens import draw_lens
from ssl_lens.simulation.parameters import Parameters, parse_parameters
from ssl_lens.simulation.sets import default_set, simulate_lenses
from ssl_lens.simulation.settings import VERSION
from ssl_lens.simulation.telescope import Telescope

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


_VARIED = {
    "count_per_class": 2,
    "image_size": 40,
    "pixel_scale_arcsec": 0.2,
    "parameters": parse_parameters(
        ["einstein_radius_arcsec=0.9,1.5", "lens_redshift=0.3,0.6", "lens_ellipticity=0,0.2", "shear=0,0.1"]
        + ["source_radius_arcsec=0.1,0.4", "source_sersic_index=1,3", "brightness=0.5,2", "lens_light=0.1,1"]
        + [
            "lens_light_radius_arcsec=0.4,1",
            "lens_light_sersic_index=2,5",
            "subhalo_slope=-1.9,-0.9",
            "psf_fwhm_arcsec=0.1,0.4",
        ]
    ),
    "seed": 7,
}
_LIGHT = {
    "source": {"source_x_arcsec", "source_y_arcsec", "source_e1", "source_e2", "source_radius_arcsec"}
    | {"source_sersic_index", "brightness"},
    "exposure": {"exposure_s"},
    "lens_light": {"lens_light", "lens_light_radius_arcsec", "lens_light_sersic_index"},
    "psf": {"psf_fwhm_arcsec"},
}


def _images(root):
    return {path.relative_to(root).as_posix(): np.load(path) for path in sorted(root.rglob("*.npy"))}


@pytest.fixture(scope="module")
def renderings(tmp_path_factory):
    return simulate_lenses(tmp_path_factory.mktemp("renderings"), **_VARIED, renderings=3, workers=1)


def test_renderings_of_a_lens_share_its_mass_and_nothing_else(renderings):
    rows = _rows(renderings)
    assert [row["name"] for row in rows] == list(_images(renderings))
    assert [row["name"] for row in rows[6:10]] == [
        *(f"cdm/cdm_000000_{r}.npy" for r in range(3)),
        "cdm/cdm_000001_0.npy",
    ]
    numbers = [(int(row["lens_number"]), int(row["rendering"])) for row in rows]
    assert numbers == [(i, r) for i in range(6) for r in range(3)]
    light = set.union(*_LIGHT.values())
    shared = rows[0].keys() - light - {"name", "rendering"}
    assert shared >= {"lens_e1", "gamma2", "einstein_radius_arcsec", "lens_redshift", "substructure_mass_msun"}
    for first in range(0, 18, 3):
        same = rows[first : first + 3]
        assert all(len({row[name] for row in same}) == 1 for name in shared)
        assert all(len({row[name] for row in same}) == 3 for name in light)
    for name in ("lens_e1", "gamma2", "einstein_radius_arcsec", "lens_redshift"):
        assert len({row[name] for row in rows}) == 6
    assert len({image.tobytes() for image in _images(renderings).values()}) == 18


def test_another_rendering_has_a_stream_of_random_numbers_of_its_own(renderings):
    """Told by seed, class, lens and rendering, in this order: a 0 at the end would be the first rendering's."""
    row = _rows(renderings)[11]
    assert row["name"] == "cdm/cdm_000001_2.npy"
    ranges = instrument("model_i").filled(_VARIED["parameters"])
    drawn = draw_lens(np.random.default_rng([7, 1, 1, 2]), "no_sub", ranges)
    for name in set.union(*_LIGHT.values()):
        assert float(row[name]) == getattr(drawn, name)


def test_the_first_rendering_is_the_image_of_a_set_with_one(renderings, tmp_path):
    one = simulate_lenses(tmp_path / "one", **_VARIED, workers=1)
    first = {name.replace("_0.npy", ".npy"): image for name, image in _images(renderings).items() if "_0.npy" in name}
    assert {name: image.tobytes() for name, image in first.items()} == {
        name: image.tobytes() for name, image in _images(one).items()
    }
    mine, theirs = _rows(one), [row for row in _rows(renderings) if row["rendering"] == "0"]
    assert [row | {"name": ""} for row in mine] == [row | {"name": ""} for row in theirs]
    record = json.loads((one / "simulation.json").read_text())
    assert (record["renderings"], record["redraw"]) == (1, ["source", "exposure", "lens_light", "psf"])
    with pytest.raises(InputError, match="holds a simulation with renderings=1, not 3; choose another folder"):
        simulate_lenses(one, **_VARIED, renderings=3)


def test_an_image_depends_on_its_rendering_and_not_on_how_many_there_are(renderings, tmp_path):
    fewer = simulate_lenses(tmp_path / "set", **(_VARIED | {"count_per_class": 1}), renderings=2, workers=1)
    files = {name: data for name, data in _files(fewer).items() if name.endswith(".npy")}
    assert len(files) == 6
    assert files.items() <= _files(renderings).items()


def test_names_of_many_renderings_sort_as_their_numbers(tmp_path):
    out = simulate_lenses(tmp_path / "set", **(_SMALL | {"count_per_class": 1}), renderings=11, workers=1)
    assert [row["name"] for row in _rows(out)] == list(_images(out))
    assert [int(row["rendering"]) for row in _rows(out)] == [*range(11)] * 3


@pytest.mark.parametrize("redraw", [(), ("exposure",), ("lens_light", "source")])
def test_only_what_is_named_is_drawn_again_and_the_noise(tmp_path, redraw):
    out = simulate_lenses(tmp_path / "set", **_VARIED, renderings=2, redraw=redraw, workers=1)
    rows = _rows(out)
    free = set().union(*(_LIGHT[part] for part in redraw))
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        assert {name for name in first if first[name] != second[name]} == free | {"name", "rendering"}
    assert len({image.tobytes() for image in _images(out).values()}) == 12
    order = [part for part in _LIGHT if part in redraw]
    assert json.loads((out / "simulation.json").read_text())["redraw"] == order
    simulate_lenses(out, **_VARIED, renderings=2, redraw=order[::-1])  # the same set
    with pytest.raises(InputError, match=r"holds a simulation with redraw=\[.*\], not \['source', 'exposure', 'lens"):
        simulate_lenses(out, **_VARIED, renderings=2)


def test_renderings_have_noise_of_their_own(tmp_path):
    """In the same light: what differs is the sky's noise, 0.01 in an exposure, and the photons'."""
    out = simulate_lenses(tmp_path / "set", **_SMALL, renderings=2, redraw=(), workers=1)
    images = np.array(list(_images(out).values())).reshape(12, 2, 32, 32)
    corner = images[:, :, :6, :6].reshape(12, 2, -1)
    noise = corner - corner.mean(axis=(0, 1))
    assert noise.std() == pytest.approx(0.01, rel=0.1)
    assert abs(np.corrcoef(noise[:, 0].ravel(), noise[:, 1].ravel())[0, 1]) < 0.2  # 4 sigma of 432 pixels


def test_renderings_on_any_number_of_workers_are_the_same_bits(renderings, tmp_path, monkeypatch):
    monkeypatch.setattr(simulate, "_CHUNK", 4)  # so that chunks cross lenses
    simulate_lenses(tmp_path / "set", **_VARIED, renderings=3, workers=2)
    assert _files(tmp_path / "set") == _files(renderings)


def test_interrupted_renderings_continue(renderings, tmp_path, monkeypatch, caplog):
    observe, shots = Telescope.observe, []

    def interrupted(self, lens, rng):
        shots.append(lens)
        if len(shots) == 9:  # the last rendering of the third lens
            raise KeyboardInterrupt
        return observe(self, lens, rng)

    monkeypatch.setattr(Telescope, "observe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        simulate_lenses(tmp_path / "set", **_VARIED, renderings=3, workers=1)
    assert len(_images(tmp_path / "set")) == 8
    caplog.set_level("INFO")
    simulate_lenses(tmp_path / "set", **_VARIED, renderings=3, workers=1)
    assert f"simulating 10 images of 40 px in {tmp_path}/set (8 there)" in caplog.text
    assert len(shots) == 9 + 10
    assert _files(tmp_path / "set") == _files(renderings)


def test_renderings_of_real_galaxies_show_others(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "galaxies").mkdir()
    rows, columns = np.indices((40, 40)) - 19.5
    for name, stretch in (("round", 1), ("long", 4)):
        np.save(tmp_path / "galaxies" / f"{name}.npy", np.exp(-(rows**2 + stretch * columns**2) / 50))
    given = _SMALL | {"galaxies": tmp_path / "galaxies", "workers": 1, "renderings": 2}
    both = _rows(simulate_lenses(tmp_path / "both", **given))
    pairs = list(zip(both[::2], both[1::2], strict=True))
    assert {(one["source_image"], other["source_image"]) for one, other in pairs} >= {("round.npy", "long.npy")}
    assert all(one["source_angle_rad"] != other["source_angle_rad"] for one, other in pairs)
    kept = _rows(simulate_lenses(tmp_path / "kept", **given, redraw=["exposure"]))
    for one, other in zip(kept[::2], kept[1::2], strict=True):
        assert [one[name] for name in ("source_image", "source_angle_rad")] == [
            other[name] for name in ("source_image", "source_angle_rad")
        ]


def test_substructure_that_no_rendering_shows_is_not_refused(tmp_path, monkeypatch):
    """What another rendering draws has no substructure, whose mass could be refused."""
    kinds, draw_lens = [], settings.draw_lens

    def seen(rng, kind, *given):
        kinds.append(kind)
        return draw_lens(rng, kind, *given)

    monkeypatch.setattr(settings, "draw_lens", seen)
    simulate_lenses(tmp_path / "set", **(_SMALL | {"count_per_class": 1}), renderings=2, workers=1)
    assert kinds == ["axion", "axion", "no_sub", "cdm", "cdm", "no_sub", "no_sub", "no_sub", "no_sub"] * 2


def test_renderings_are_a_labelled_set(renderings, tmp_path):
    loaded = load_images(renderings, cache=tmp_path)
    assert loaded.images.shape == (18, 1, 40, 40)
    assert loaded.classes == ("axion", "cdm", "no_sub")
    assert loaded.labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert loaded.names[7] == "cdm/cdm_000000_1.npy"
    assert loaded.held_out is None
    assert loaded.targets["lens_number"].tolist() == [i // 3 for i in range(18)]
    assert loaded.targets["rendering"].tolist() == [0, 1, 2] * 6


def test_a_killed_process_leaves_a_set_that_continues(tmp_path):
    """Killed so that nothing of its own can tidy up."""
    given = _SMALL | {"count_per_class": 50, "workers": 1}
    code = (
        "from pathlib import Path; from ssl_lens.simulation.sets import simulate_lenses; "
        f"simulate_lenses(Path({str(tmp_path / 'set')!r}), **{given})"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[2])
    while len(list((tmp_path / "set").glob("*/[a-z]*.npy"))) < 5:
        assert process.poll() is None
        time.sleep(0.001)
    process.kill()
    process.wait()
    whole = _files(simulate_lenses(tmp_path / "whole", **given))
    for continued in (False, True):
        if continued:
            simulate_lenses(tmp_path / "set", **given)
        files = {name: data for name, data in _files(tmp_path / "set").items() if "/." not in name}
        assert files.items() <= whole.items()
        assert (len(files) == len(whole)) == continued


def test_a_worker_that_is_killed_is_one_line_and_leaves_a_set_that_continues(tmp_path):
    given = _SMALL | {"count_per_class": 100}

    def kill_one():
        while not list((tmp_path / "set").glob("*/[a-z]*.npy")):
            time.sleep(0.001)
        child = next(child for child in multiprocessing.active_children() if child.pid is not None)
        unfinished.write_bytes(b"half")
        unfinished.rename(unfinished.with_name(f".cdm_000099.npy.{child.pid}"))
        child.kill()

    unfinished = tmp_path / "set" / "cdm" / "another"
    killer = threading.Thread(target=kill_one)
    killer.start()
    with pytest.raises(InputError, match="one of the 2 processes that simulate lenses ended early, perhaps") as raised:
        simulate_lenses(tmp_path / "set", **given, workers=2)
    killer.join()
    made = len([name for name in _files(tmp_path / "set") if name.endswith(".npy")])
    assert f"; {made} of 300 images were made in {tmp_path}/set: simulate again to go on, with workers=1" in (
        str(raised.value)
    )
    assert not list((tmp_path / "set").rglob(".*"))
    assert not (tmp_path / "set" / "parameters.csv").exists()
    simulate_lenses(tmp_path / "set", **given, workers=1)
    assert _files(tmp_path / "set") == _files(simulate_lenses(tmp_path / "whole", **given, workers=1))


def test_a_whole_set_is_reused(tmp_path, monkeypatch):
    first = default_set(**_SMALL, cache=tmp_path)
    monkeypatch.setattr(simulate, "_simulate", None)
    assert default_set(**_SMALL, cache=tmp_path) == first
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path))
    assert default_set(**_SMALL) == first


def test_other_settings_have_another_folder_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(simulate, "simulate_lenses", lambda out, **_: out)
    ranges = [Parameters(shear=(0.0, high)) for high in (0.1, 0.2)] + [Parameters(noise="deeplense")]
    changes = [{}, {"model": "model_ii"}, {"image_size": 33}, {"pixel_scale_arcsec": 0.21}, {"seed": 8}]
    changes += [{"count_per_class": 5}, *({"parameters": parameters} for parameters in ranges)]
    folders = [default_set(**(_SMALL | change), cache=tmp_path) for change in changes]
    assert len(set(folders)) == len(changes) == 9
    assert folders[0].name == f"lenses-model_i-4-per-class-32px-0.2arcsec-seed7-v{VERSION}"
    own = default_set(count_per_class=4, model="model_ii", seed=7, cache=tmp_path)
    assert own.name == f"lenses-model_ii-4-per-class-64px-0.101arcsec-seed7-v{VERSION}"


def test_a_write_that_fails_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full(file, _):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(simulate.np, "save", full)
    with pytest.raises(InputError, match=r"cannot write simulated lenses to .*: No space left on device"):
        simulate_lenses(tmp_path / "set", **_SMALL, workers=1)
    assert list(_files(tmp_path / "set")) == ["simulation.json"]


@pytest.mark.parametrize("failing", [1, 5, 12])
def test_a_disk_that_fills_up_loses_nothing(small, tmp_path, monkeypatch, failing):
    """Whatever is there is whole, and with room again the set becomes what it would have been."""
    save, calls = np.save, []

    def fills_up(file, image):
        calls.append(image)
        if len(calls) == failing:
            file.write(b"half")
            raise OSError(28, "No space left on device")
        save(file, image)

    monkeypatch.setattr(simulate.np, "save", fills_up)
    with pytest.raises(InputError, match="No space left on device; choose another folder"):
        simulate_lenses(tmp_path / "set", **_SMALL, workers=1)
    written = _files(tmp_path / "set")
    assert len(written) == failing  # with simulation.json
    assert written.items() <= _files(small).items()
    simulate_lenses(tmp_path / "set", **_SMALL, workers=1)
    assert _files(tmp_path / "set") == _files(small)


@pytest.mark.parametrize(("workers", "limit", "written"), [(2, 4000, 1), (1, 4300, 1 + 12)])
def test_files_that_do_not_fit(small, tmp_path, workers, limit, written):
    """The system itself refuses to write more to a file; in a process of its own, whose output is not a file.

    Images take 4224 bytes, the table more, and the settings, written first, less.
    """
    script, out = tmp_path / "simulate.py", tmp_path / "set"
    script.write_text(f"""
import resource
from pathlib import Path
from ssl_lens.simulation.sets import simulate_lenses
if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
    simulate_lenses(Path({str(out)!r}), **{_SMALL}, workers={workers})
""")
    process = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    last = process.stderr.splitlines()[-1]
    assert re.search(r"InputError: cannot write simulated lenses to .*(written|too large); choose another", last)
    assert len(_files(out)) == written
    assert _files(out).items() <= _files(small).items()
    assert not (out / "parameters.csv").exists()
    simulate_lenses(out, **_SMALL, workers=1)
    assert _files(out) == _files(small)


def test_a_disk_that_fills_up_at_the_table(small, tmp_path, monkeypatch):
    def fills_up(out, settings):
        with whole_file(out / "parameters.csv") as temporary:
            temporary.write_text("name,class")
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(simulate, "_write_parameters", fills_up)
        with pytest.raises(InputError, match="No space left on device"):
            simulate_lenses(tmp_path / "set", **_SMALL, workers=1)
    assert not (tmp_path / "set" / "parameters.csv").exists()
    simulate_lenses(tmp_path / "set", **_SMALL, workers=1)
    assert _files(tmp_path / "set") == _files(small)


def _rows(folder):
    with (folder / "parameters.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_parameters_tell_what_was_drawn(small):
    rows = _rows(small)
    assert [row["name"] for row in rows] == [name for name in _files(small) if name.endswith(".npy")]
    assert json.loads((small / "simulation.json").read_text())["seed"] == 7
    for row in rows:
        assert (row["axion_mass_ev"] == "") == (row["class"] != "axion")
        assert (row["subhalo_slope"] == "") == (row["class"] != "cdm")
        mass, radius = float(row["substructure_mass_msun"]), float(row["halo_einstein_radius_arcsec"])
        assert mass <= {"axion": 3.0001e10, "no_sub": 0.0}.get(row["class"], 3e11)
        assert (radius == pytest.approx(1.66452, rel=1e-5)) == (row["class"] == "no_sub")
        assert float(row["einstein_radius_arcsec"]) == pytest.approx(1.66452, rel=1e-5)
        assert float(row["substructure_mass_fraction"]) == pytest.approx(mass / 1e12, rel=1e-5)
        assert (float(row["lens_redshift"]), float(row["source_redshift"])) == (0.5, 1.0)
        assert 1e3 <= float(row["exposure_s"]) <= 10**3.5


def test_numbers_of_the_table_are_finite_or_absent(small, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "galaxies").mkdir()
    np.save(tmp_path / "galaxies" / "round.npy", np.exp(-((np.indices((20, 20)) - 9.5) ** 2).sum(axis=0) / 20))
    pictured = simulate_lenses(tmp_path / "set", **_SMALL, galaxies=tmp_path / "galaxies", workers=1)
    for folder, empty in (
        (small, {"axion_mass_ev", "subhalo_slope", "source_angle_rad"}),
        (pictured, {"axion_mass_ev", "subhalo_slope", "source_sersic_index"}),
    ):
        rows = _rows(folder)
        names = list(rows[0])
        assert (names[:2], names[-1]) == (["name", "class"], "source_image")
        assert {name for name in names for row in rows if row[name] == ""} - {"source_image"} == empty
        assert all(np.isfinite(float(row[name])) for row in rows for name in names[2:-1] if row[name])
        table = read_table(*own_tables(folder))
        assert len(table.names) == 12
        assert set(names[2:-1]) - table.targets.keys() <= empty  # a column of nothing is not a target


def test_every_free_parameter_is_in_the_table(tmp_path):
    ranges = parse_parameters(["einstein_radius_arcsec=0.9,1.5", "lens_redshift=0.3,0.6", "source_sersic_index=1,3"])
    out = simulate_lenses(tmp_path / "set", **_SMALL, parameters=ranges, workers=1)
    rows = _rows(out)
    for name, (low, high) in {
        "einstein_radius_arcsec": (0.9, 1.5),
        "lens_redshift": (0.3, 0.6),
        "source_sersic_index": (1, 3),
    }.items():
        values = [float(row[name]) for row in rows]
        assert low <= min(values) < max(values) <= high
        assert len(set(values)) == 12
    assert len({row["mass_msun"] for row in rows}) == 12
    wanted = [name for name in rows[0] if name not in ("name", "class", "source_image", "source_angle_rad")]
    table = read_table(*own_tables(out))
    assert list(table.targets) == wanted
    fraction = dict(zip(table.names, table.targets["substructure_mass_fraction"], strict=True))
    no_sub, vortex = fraction["no_sub/no_sub_000002.npy"], fraction["axion/axion_000002.npy"]
    assert no_sub == 0 < vortex < 0.5
    with pytest.raises(InputError, match=r"holds a simulation with einstein_radius_arcsec=\[0.9, 1.5\], not None"):
        simulate_lenses(out, **_SMALL, workers=1)


@pytest.mark.parametrize(("model", "side"), [("model_i", 150), ("model_ii", 64), ("model_iii", 64)])
def test_the_three_models(tmp_path, model, side):
    out = simulate_lenses(tmp_path / "set", count_per_class=1, model=model, seed=1, workers=1)
    images = [np.load(path) for path in sorted(out.rglob("*.npy"))]
    assert [image.shape for image in images] == [(1, side, side)] * 3
    assert all(image.dtype == np.float32 for image in images)
    assert all(image.min() < 0 < image.max() for image in images)  # sky subtracted


def test_sources_from_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "galaxies").mkdir()
    rows, columns = np.indices((40, 40)) - 19.5
    for name, stretch in (("round", 1), ("long", 4)):
        np.save(tmp_path / "galaxies" / f"{name}.npy", np.exp(-(rows**2 + stretch * columns**2) / 50))
    first = simulate_lenses(tmp_path / "one", **_SMALL, galaxies=tmp_path / "galaxies", workers=1)
    second = simulate_lenses(tmp_path / "two", **_SMALL, galaxies=tmp_path / "galaxies", workers=2)
    assert _files(first) == _files(second)
    assert {row["source_image"] for row in _rows(first)} == {"round.npy", "long.npy"}
    with pytest.raises(InputError, match="holds a simulation with galaxies=[0-9a-f]{24}, not None"):
        simulate_lenses(first, **_SMALL)


def _telling_statistics(images: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> list[str]:
    """Trivial statistics of images [N, S, S] that tell a class from the others, alone or together.

    What the ring itself looks like is not a trivial statistic.
    """
    inside = np.zeros(images.shape[1:], dtype=bool)
    inside[2:-2, 2:-2] = True
    border = images[:, ~inside]
    statistics = {
        "total flux": images.sum(axis=(1, 2)),
        "background mean": border.mean(axis=1),
        "background std": border.std(axis=1),
        "lowest at the border": border.min(axis=1),
        "highest at the border": border.max(axis=1),
        "file size": np.array([image.nbytes for image in images]),
    }
    classifier = make_pipeline(StandardScaler(), LogisticRegression())
    features = np.stack(list(statistics.values()), axis=1)
    together = cross_val_predict(classifier, features, labels, cv=5, method="predict_proba")
    # An AUC of chance is 0.5 +- sqrt((n + m + 1) / (12 n m)), here 0.025; of all 21, one in 800 runs exceeds 4 sigma.
    count = len(images) // 3
    allowed = 4 * np.sqrt((3 * count + 1) / (12 * count * 2 * count))
    return [
        f"{name} reveals {kind}"
        for label, kind in enumerate(classes)
        for name, value in {**statistics, "a classifier": together[:, label]}.items()
        if abs(roc_auc_score(labels == label, value) - 0.5) >= allowed
    ]


@pytest.mark.parametrize("ranges", [[], ["lens_light=0,1", "brightness=0.5,2"]])
def test_trivial_statistics_do_not_tell_the_classes(tmp_path, ranges):
    """Nor would the test miss it: a class a tenth of a noise's worth brighter in every pixel is noticed at once."""
    out = simulate_lenses(
        tmp_path / "set",
        count_per_class=200,
        image_size=32,
        pixel_scale_arcsec=0.2,
        parameters=parse_parameters(ranges),
        seed=1,
        workers=1,
    )
    assert len({path.stat().st_size for path in out.rglob("*.npy")}) == 1
    loaded = load_images(out, cache=tmp_path)
    images = np.asarray(loaded.images)[:, 0]
    assert _telling_statistics(images, loaded.labels, loaded.classes) == []
    cdm = loaded.labels[:, None, None] == loaded.classes.index("cdm")
    border_only = np.where(np.pad(np.zeros((28, 28), bool), 2, constant_values=True), 0.001, 0)  # noise is 0.01
    for spoiled, statistic in (
        (images + 0.001 * cdm, "background mean reveals cdm"),
        (images + border_only * cdm, "background mean reveals cdm"),
        (np.where(cdm, 1.1, 1) * images, "background std reveals cdm"),
    ):
        found = _telling_statistics(spoiled, loaded.labels, loaded.classes)
        assert statistic in found
        assert "a classifier reveals cdm" in found
    if not ranges:  # all lenses are equally bright: a twentieth shows in the total
        spoiled = np.where(cdm, 1.05, 1) * images
        assert "total flux reveals cdm" in _telling_statistics(spoiled, loaded.labels, loaded.classes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count_per_class": 0}, "count_per_class=0 is too small; set it to 1 or more"),
        ({"seed": -1}, "seed=-1 is too small; set it to 0 or more"),
        ({"pixel_scale_arcsec": 0.1}, r"cuts the lensed arcs; set pixel_scale_arcsec to 0.142 or more"),
        ({"image_size": 0}, "image_size=0 is too small; set it to 1 or more"),
        ({"pixel_scale_arcsec": -0.1}, "pixel_scale_arcsec=-0.1 is not a scale; set it above 0"),
        ({"renderings": 0}, "renderings=0 is too small; set it to 1 or more"),
        (
            {"renderings": 2, "redraw": ["source", "noise"]},
            "redraw=noise is not known; choose from source, exposure, lens_light, psf",
        ),
        (
            {"redraw": ["source", "exposure"]},
            "redraw=source,exposure has no effect with renderings=1; set renderings=2 or more",
        ),
        (
            {
                "model": "model_ii",
                "renderings": 2,
                "redraw": ["exposure", "lens_light"],
                "parameters": Parameters(noise="deeplense"),
            },
            "renderings=2 of a lens would be equal images: without noise, redraw=exposure,lens_light changes none; "
            "add source",
        ),
        ({"workers": -1}, "workers=-1 is too small; set it to 1 or more"),
        (
            {"parameters": Parameters(psf_fwhm_arcsec=(0.1, 2.5))},
            "psf_fwhm_arcsec=2.5 spreads the light over the borders of images of 6.4 arcsec; lower it to a quarter",
        ),
        (
            {"parameters": Parameters(einstein_radius_arcsec=(1.0, 3.0))},
            r"cuts the lensed arcs; set pixel_scale_arcsec to 0.226 or more",
        ),
        (
            {"parameters": Parameters(halo_mass_msun=(5e10, 1e12), subhalo_slope=(-0.9, -0.9))},
            r"subhalo mass up to 7.6e\+10 Msun in a halo of 5e\+10 Msun; lower subhalo_count or subhalo_mass_msun",
        ),
        (
            {"parameters": Parameters(vortex_mass_msun=(1e10, 2e12))},
            r"vortex mass up to 2e\+12 Msun in a halo of 1e\+12 Msun; lower vortex_mass_msun",
        ),
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
    with pytest.raises(InputError, match="holds files that are not a simulation"):
        simulate_lenses(tmp_path, **_SMALL)
    assert list(_files(tmp_path)) == ["mine.npy"]
