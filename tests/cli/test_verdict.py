"""`ssl-lens data check` says of many small sets what `ssl-lens pretrain` does with them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from accelerate.state import AcceleratorState
from PIL import Image

from ssl_lens.cli import main as cli
from ssl_lens.errors import InputError
from ssl_lens.recipe.compose import compose
from ssl_lens.recipe.recipe import load_recipe

RECIPE = """
views: {global_size: 16, local_sizes: [8], local_counts: [1]}
model: {name: swin_micro, patch_size: 2, stages: 2, window_size: 4, drop_path: 0.0}
method: {out_dim: 8, head_hidden_dim: 8, head_bottleneck_dim: 4, ema_momentum: 0.9}
optim: {epochs: 1, batch_size: 4, warmup_epochs: 0}
run: {device: cpu, cpu_threads: 1, log_steps: 1}
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("ssl_lens.data.check.report.write_check", lambda report, out, rgb: [])  # pictures take time
    monkeypatch.setattr("ssl_lens.recipe.compose.save_views", lambda *views, pictures: None)
    monkeypatch.setattr("ssl_lens.engine.reporter.plot_curves", lambda *metrics, panels, baselines: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(RECIPE)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


_RNG = np.random.default_rng(0)


def noise(*shape: int) -> np.ndarray:
    return _RNG.normal(size=shape).astype(np.float32)


def write(names: list[str], *shape: int) -> None:
    for name in names:
        Path("set", name).parent.mkdir(parents=True, exist_ok=True)
        np.save(Path("set", name), noise(*(shape or (20, 20))))


def numbered(count: int, folder: str = "") -> list[str]:
    return [f"{folder}{i:03d}.npy" for i in range(count)]


def table(name: str, header: str, rows: list[str]) -> None:
    Path("set", name).write_text("\n".join([header, *rows]) + "\n")


def all_held_out() -> None:
    write(numbered(8))
    table("targets.csv", "name,split", [f"{name},test" for name in numbered(8)])


def folds() -> None:
    write(numbered(10))
    table("targets.csv", "name,label,split", [f"{name},a,{i % 5}" for i, name in enumerate(numbered(10))])


def tests_alone() -> None:
    write([*numbered(4, "test/a/"), *numbered(4, "test/b/")])


def one_left() -> None:
    write([*numbered(7, "test/a/"), "train/a/000.npy"])


def damaged(good: int, bad: int) -> Callable[[], None]:
    def make() -> None:
        write(numbered(good))
        for i in range(bad):
            Path("set").mkdir(exist_ok=True)
            Path("set", f"bad{i}.npy").write_bytes(b"no image")

    return make


def with_constant() -> None:
    write(numbered(3))
    np.save("set/constant.npy", np.ones((20, 20), np.float32))


def of_sizes(*shapes: tuple[int, ...]) -> Callable[[], None]:
    def make() -> None:
        for i, shape in enumerate(shapes):
            write([f"{i}.npy"], *shape)

    return make


def constant_channel() -> None:
    Path("set").mkdir()
    for i in range(4):
        np.save(f"set/{i}.npy", np.concatenate([noise(1, 20, 20), np.full((1, 20, 20), 7, np.float32)]))


def grey_pictures() -> None:
    Path("set").mkdir()
    for i in range(4):
        Image.fromarray(_RNG.integers(0, 255, (20, 20), np.uint8)).save(f"set/{i}.png")


def bad_table() -> None:
    write(numbered(4))
    Path("set/targets.csv").write_text("name,label\n000.npy,a\n000.npy,b\n")


def names_file(*names: str) -> Callable[[], None]:
    def make() -> None:
        write([*numbered(6), *numbered(2, "test/a/")] if "test/a/000.npy" in names else numbered(6))
        Path("names.txt").write_text("".join(f"{name}\n" for name in names))

    return make


EXCLUDE, PROBE = "data.exclude=names.txt", "data.probe=probe"


def with_probe(classes: int, each: int, *shape: int) -> Callable[[], None]:
    def make() -> None:
        write(numbered(6))
        for label in range(classes):
            for i in range(each):
                write([f"../probe/{label}/{i}.npy"], *shape)

    return make


SETS: dict[str, tuple[Callable[[], None], list[str], bool]] = {  # what makes it, overrides, whether it is taken
    "plain": (lambda: write(numbered(6)), [], True),
    "classes": (lambda: write([*numbered(3, "a/"), *numbered(3, "b/")]), [], True),
    "one image": (lambda: write(numbered(1)), [], False),
    "two images": (lambda: write(numbered(2)), [], True),
    "fewer than parts": (lambda: write(numbered(3)), ["optim.accumulate=4"], False),
    "all held out by a table": (all_held_out, [], False),
    "numbers of folds": (folds, [], False),
    "tests alone": (tests_alone, [], False),
    "one left to train on": (one_left, [], False),
    "one in three damaged": (damaged(2, 1), [], False),
    "all damaged": (damaged(0, 3), [], False),
    "one in a hundred damaged": (damaged(99, 1), [], True),
    "two in a hundred damaged": (damaged(98, 2), [], False),
    "a constant image": (with_constant, [], False),
    "two sizes": (of_sizes((20, 20), (24, 20), (24, 20)), [], False),
    "two sizes, cropped": (of_sizes((20, 20), (24, 20), (24, 20)), ["data.sizes=crop"], True),
    "two sizes, padded": (of_sizes((20, 20), (24, 20)), ["data.sizes=pad"], True),
    "cropped to more than they have": (of_sizes((20, 20), (24, 24)), ["data.sizes=crop", "data.size=22"], False),
    "two numbers of channels": (of_sizes((2, 20, 20), (3, 20, 20)), ["data.sizes=crop"], False),
    "other channels than asked for": (of_sizes((2, 20, 20), (2, 20, 20)), ["data.in_channels=1"], False),
    "a channel that is constant": (constant_channel, [], False),
    "grey pictures": (grey_pictures, [], True),
    "a table with two lines for one image": (bad_table, [], False),
    "smaller than a crop": (lambda: write(numbered(4), 12, 12), [], True),
    "smaller than a region": (lambda: write(numbered(4), 5, 5), [], False),
    "odd": (lambda: write(numbered(4), 21, 23), [], True),
    "binned away": (lambda: write(numbered(4), 20, 20), ["data.bin=21"], False),
    "too wide a blur": (lambda: write(numbered(4)), ["views.lens_safe.psf_sigma_px=[0, 3]"], False),
    "a layout that is not theirs": (lambda: write(numbered(4)), ["data.layout=model_iv"], False),
    "some excluded": (names_file("000.npy", "001.npy"), [EXCLUDE], True),
    "all excluded": (names_file(*numbered(6)), [EXCLUDE], False),
    "excluded are others": (names_file("000.npy", "100.npy"), [EXCLUDE], False),
    "excluded are held out as well": (names_file("000.npy", "test/a/000.npy"), [EXCLUDE], True),
    "excluded names twice": (names_file("000.npy", "000.npy"), [EXCLUDE], False),
    "nothing": (lambda: Path("set").mkdir(), [], False),
    "a probe": (with_probe(2, 5), [PROBE], True),
    "a probe without classes": (with_probe(0, 0), [PROBE], False),
    "a probe of few images": (with_probe(2, 1), [PROBE], False),
    "a probe of other channels": (with_probe(2, 5, 3, 20, 20), [PROBE], False),
    "a probe of small images": (with_probe(2, 5, 1, 12, 12), [PROBE, "data.center_crop=16"], False),
}


def alike(text: str) -> str:
    """What both commands say, but for where the set is and the run's list of unusable images."""
    text = text.replace("; all are listed in runs/small/quarantine.tsv", "").replace(f"{Path.cwd()}/", "")
    return text.replace("data.path=set", "set").replace("DIR=set", "set")


@pytest.mark.parametrize("name", SETS)
def test_the_verdict_is_what_a_run_does(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    make, overrides, taken = SETS[name]
    make()
    checked = cli.main(["data", "check", "set", "--out", "out", "--recipe", "small.yaml", *overrides])
    said = capsys.readouterr()
    try:
        images, refused = len(compose(load_recipe("small.yaml", ["data.path=set", *overrides])).names), ""
    except InputError as error:
        images, refused = 0, str(error)
    assert taken == (not refused)
    if taken:
        assert checked == 0
        assert f"training would accept this set: {images} images to train on\n" in said.out
    else:
        assert checked in (1, 2)
        assert alike(refused) in alike(said.out + said.err)
        assert not list(Path("runs").rglob("recipe.yaml"))


@pytest.mark.parametrize("name", ["plain", "one image", "all held out by a table", "one in three damaged", "two sizes"])
def test_without_a_recipe_the_images_alone_are_judged(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    make, _, taken = SETS[name]
    make()
    assert cli.main(["data", "check", "set", "--out", "out"]) == (0 if taken else 1)
    assert ("training would refuse this set\n" in capsys.readouterr().out) != taken


def test_flags_come_before_the_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    of_sizes((20, 20), (24, 20), (24, 24))()
    Path("names.txt").write_text("2.npy\n")
    arguments = ["data", "check", "set", "--sizes", "crop", "--split", "names.txt", "--recipe", "small.yaml"]
    assert cli.main([*arguments, "data.sizes=refuse", "optim.batch_size=8"]) == 0
    out = capsys.readouterr().out
    assert "training would choose optim.batch_size: 8 -> 2, as there are only 2 images\n" in out
    assert "training would accept this set: 2 images to train on\n" in out


@pytest.mark.parametrize("count", [2, 5])
def test_few_images_do_train(count: int) -> None:
    """What is accepted is also trained on."""
    write(numbered(count))
    assert cli.main(["pretrain", "small.yaml", "data.path=set", "run.folder=run"]) == 0
