"""What features are worth next to what needs no training, and which epoch was the best."""

import json
from pathlib import Path

import pytest
from torch import Tensor

from ssl_lens.backbones.backbone import Encoder, Features
from ssl_lens.engine.best import Best
from ssl_lens.engine.watch import Shortfall, Watch, standard_error
from ssl_lens.errors import InputError
from ssl_lens.runs.folder import RunFolder


class Network(Encoder):
    """Stands for a backbone after so many epochs."""

    def __init__(self, epochs: int) -> None:
        super().__init__(1, 1)
        self.epochs = epochs

    def forward(self, images: Tensor) -> Features:
        raise AssertionError("it is only looked up")


class Scripted:
    """A monitor that has known figures for every epoch."""

    def __init__(self, trials: int, **figures: tuple[float, ...]) -> None:
        self.figures, self.trials, self.script = tuple(figures), trials, figures

    def measure(self, backbone: Network) -> dict[str, float]:
        return {name: values[backbone.epochs] for name, values in self.script.items()}


def write(backbone: Network, folder: Path) -> None:
    (folder / "weights").write_text(str(backbone.epochs))


def watch(root: Path, wavelets: dict[str, float], trials: int = 1000, **figures: tuple[float, ...]) -> Watch:
    root.mkdir(exist_ok=True)
    folder, judge, other = RunFolder(root), Scripted(trials, **figures), Scripted(4, alignment=(0.1,) * 9)
    return Watch(folder, (judge, other), lambda: wavelets, Best(folder.best, write, "probe"))


def epoch(watched: Watch, number: int) -> dict[str, float]:
    return watched.after_epoch(Network(number), 10 * number - 1, float(number))


def test_the_noise_is_that_of_two_shares() -> None:
    assert standard_error(0.5, 0.5, 100) == pytest.approx((0.5 / 102) ** 0.5)
    assert standard_error(1.0, 1.0, 8) == pytest.approx((2 * 0.09 / 10) ** 0.5)  # no share is certain
    assert standard_error(0.2, 0.9, 10**6) == pytest.approx((0.25 / 10**6) ** 0.5, rel=1e-4)


def test_features_are_worth_their_best_figure_and_fall_short_beyond_the_noise(tmp_path: Path) -> None:
    """Two standard errors of .9 and .87 of 1,000 are .0286."""
    watched = watch(tmp_path, {"knn": 0.3, "whitened": 0.9}, knn=(0.86, 0.88, 0.87, 0.5), whitened=(0.1, 0.6, 0.1, 0.9))
    watched.begin(Network(0))
    assert epoch(watched, 1) == {"knn": 0.88, "whitened": 0.6, "alignment": 0.1}
    assert watched.shortfalls == []
    epoch(watched, 2)
    assert watched.shortfalls == [Shortfall("lens_wavelets", 0.87, 0.9, pytest.approx(0.028557, abs=1e-6), 1000)]
    epoch(watched, 3)
    assert watched.shortfalls == []


def test_the_better_of_what_needs_no_training_is_named_and_the_best_epoch(tmp_path: Path) -> None:
    watched = watch(tmp_path, {"knn": 0.95}, knn=(0.8, 0.85, 0.5))
    watched.begin(Network(0))
    epoch(watched, 1)
    assert [each.than for each in watched.shortfalls] == ["lens_wavelets"]
    epoch(watched, 2)
    assert [(each.than, each.level) for each in watched.shortfalls] == [("lens_wavelets", 0.95), ("best", 0.85)]


def test_few_images_say_little(tmp_path: Path) -> None:
    watched = watch(tmp_path, {"knn": 0.9}, trials=10, knn=(0.9, 0.6))
    watched.begin(Network(0))
    epoch(watched, 1)
    assert watched.shortfalls == []


def test_baselines_are_measured_once_and_read_again(tmp_path: Path) -> None:
    watched = watch(tmp_path, {"knn": 0.7}, knn=(0.6, 0.5))
    watched.begin(Network(0))
    expected = {"initial": {"knn": 0.6, "alignment": 0.1}, "lens_wavelets": {"knn": 0.7}}
    assert json.loads((tmp_path / "baselines.json").read_text()) == expected
    again = watch(tmp_path, {"knn": 0.0}, knn=(0.0, 0.5))
    assert again.baselines == expected
    epoch(again, 1)
    assert [(each.than, each.level) for each in again.shortfalls] == [("lens_wavelets", 0.7)]
    del again.baselines["lens_wavelets"]
    epoch(again, 1)
    assert [(each.than, each.level) for each in again.shortfalls] == [("initial", 0.6)]


@pytest.mark.parametrize("content", ["", "[]", '{"initial": 3}', '{"initial": {"knn": "much"}}'])
def test_baselines_that_cannot_be_read_are_done_without(tmp_path: Path, content: str) -> None:
    (tmp_path / "baselines.json").write_text(content)
    watched = watch(tmp_path, {}, knn=(0.6, 0.5))
    assert watched.baselines == {}
    assert epoch(watched, 1)["knn"] == 0.5
    assert watched.shortfalls == []


def test_without_wavelets_there_is_no_line(tmp_path: Path) -> None:
    watched = watch(tmp_path, {}, knn=(0.6, 0.5))
    watched.begin(Network(0))
    assert set(watched.baselines) == {"initial"}


def kept(root: Path) -> tuple[str, dict[str, object]]:
    return (root / "best" / "weights").read_text(), json.loads((root / "best" / "best.json").read_text())


def test_the_best_epoch_is_kept_over_a_resume(tmp_path: Path) -> None:
    """Of equals the first; epoch 0, before training, is none."""
    figures = {"knn": (0.9, 0.5, 0.7, 0.7, 0.6, 0.8)}
    watched = watch(tmp_path, {}, **figures)
    watched.begin(Network(0))
    assert not (tmp_path / "best").exists()
    for number in (1, 2, 3):
        epoch(watched, number)
    assert kept(tmp_path) == ("2", {"step": 19, "epoch": 2.0, "monitor": "probe", "worth": 0.7})
    resumed = watch(tmp_path, {}, **figures)
    epoch(resumed, 4)
    assert kept(tmp_path)[0] == "2"
    epoch(resumed, 5)
    assert kept(tmp_path)[0] == "5"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["baselines.json", "best"]


def test_what_is_not_a_number_is_not_kept(tmp_path: Path) -> None:
    watched = watch(tmp_path, {}, knn=(0.9, float("nan"), 0.2))
    epoch(watched, 1)
    assert not (tmp_path / "best").exists()
    epoch(watched, 2)
    assert kept(tmp_path)[0] == "2"


def test_what_another_monitor_kept_is_no_measure(tmp_path: Path) -> None:
    Best(tmp_path / "best", write, "views").offer(Network(7), 69, 7.0, 0.99)
    watched = watch(tmp_path, {}, knn=(0.0, 0.5))
    epoch(watched, 1)
    assert kept(tmp_path)[0] == "1"


@pytest.mark.parametrize("damage", ["no record", "half a record"])
def test_a_folder_that_is_not_whole_is_written_again(tmp_path: Path, damage: str) -> None:
    Best(tmp_path / "best", write, "probe").offer(Network(7), 69, 7.0, 0.99)
    record = tmp_path / "best" / "best.json"
    record.write_text(record.read_text()[:20]) if damage == "half a record" else record.unlink()
    Best(tmp_path / "best", write, "probe").offer(Network(1), 9, 1.0, 0.5)
    assert kept(tmp_path)[0] == "1"


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    def fail(backbone: Network, folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match=r"cannot write .*best: No space left on device; make room, then continue"):
        Best(tmp_path / "best", fail, "probe").offer(Network(1), 9, 1.0, 0.5)
