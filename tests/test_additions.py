"""CONTRIBUTING's table: what an addition needs besides its file is one entry of one table, and the command knows it."""

import json
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from tiny_run import write_labelled_images, write_run
from torch import Tensor, nn

from ssl_lens.backbones import catalog
from ssl_lens.backbones.backbone import Encoder, MapBackbone
from ssl_lens.backbones.options import Count, Family, Options
from ssl_lens.cli import main as cli
from ssl_lens.data.formats import reader
from ssl_lens.data.formats.layout import array_pixels, samples_of
from ssl_lens.evaluation.answers import Classes
from ssl_lens.evaluation.probes import PROBES
from ssl_lens.evaluation.probes.probe import FeatureProbe, Fitted
from ssl_lens.evaluation.table import read_rows
from ssl_lens.evaluation.tasks import TASKS
from ssl_lens.evaluation.tasks.task import Task
from ssl_lens.methods.catalog import METHODS
from ssl_lens.methods.method import Method, MethodOptions
from ssl_lens.recipe.recipe import load_recipe
from ssl_lens.representation.frozen import load_backbone

TINY = """
data: {path: %s}
views: {global_size: 16, local_sizes: [], local_counts: []}
model: {name: resnet_micro, width: 4}
method: {name: dino}
optim: {epochs: 1, batch_size: 4, warmup_epochs: 0, lr: 1e-3}
run: {device: cpu, cpu_threads: 1, log_steps: 1}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The working folder, with 8 images and a recipe."""
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_labelled_images(tmp_path / "images", per_class=4)
    (tmp_path / "tiny.yaml").write_text(TINY % "images")
    yield tmp_path
    AcceleratorState._reset_state(reset_partial_state=True)


class AlikeOptions(MethodOptions):
    name: Literal["alike"] = "alike"
    weight: float = 1.0


class Alike(Method):
    """Only what a method must have: both views of an image should have the same features."""

    Options = AlikeOptions
    options: AlikeOptions

    def __init__(self, backbone: Encoder, options: AlikeOptions) -> None:
        super().__init__(backbone, options)
        self.trunk = backbone
        self.seen: list[Tensor] = []

    @property
    def trained(self) -> nn.Module:
        return self

    @property
    def backbone(self) -> Encoder:
        return self.trunk

    def start_step(self) -> None:
        self.seen = []

    def losses(self, views: Any, now: Any) -> dict[str, Tensor]:
        features = self._features(views.global_crops)
        self.seen.append(features.detach().flatten(0, 1))
        return {"total": self.options.weight * (features[0] - features[1]).pow(2).mean()}

    def features(self) -> Tensor:
        return torch.cat(self.seen)


def test_a_method(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It trains, is resumed by its saved recipe, listed, exported; its mistakes name its own options."""
    monkeypatch.setitem(METHODS, "alike", Alike)
    words = ["pretrain", "tiny.yaml", "data.probe=images", "method={name: alike}", "method.weight=2.0"]
    assert cli.main([*words, "run.folder=run"]) == 0
    assert {"checkpoints", "plots", "recipe.yaml"} <= {path.name for path in Path("run").iterdir()}
    assert Path("run/plots/curves.png").stat().st_size > 1000
    assert load_recipe("run/recipe.yaml").method == AlikeOptions(weight=2.0)
    last = json.loads(Path("run/metrics.jsonl").read_text().splitlines()[-1])
    assert {"loss", "feature_std", "rankme", "lr", "probe_knn"} <= set(last)
    assert cli.main(["pretrain", "run/recipe.yaml", "run.resume=auto"]) == 0
    assert cli.main(["runs", "run"]) == 0
    assert "finished" in capsys.readouterr().out
    assert load_backbone("run")(torch.zeros(1, 1, 40, 40)).view.shape == (1, 16)
    assert cli.main(["pretrain", "tiny.yaml", "method.name=alike", "method.wieght=1"]) == 2
    assert "the nearest valid key is method.weight" in capsys.readouterr().err


SMALL = {"dino": "out_dim: 16, head_hidden_dim: 16, head_bottleneck_dim: 8"}  # options of methods; others: as they are


@pytest.mark.parametrize("name", METHODS)
def test_every_method_resumes_bit_exactly(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second epoch from the first one's checkpoint; every method of the catalogue."""
    from ssl_lens.engine import checkpoints
    from ssl_lens.runs import checkpoint

    words = [
        "pretrain",
        "tiny.yaml",
        f"method={{name: {name}, {SMALL.get(name, '')}}}",
        "optim.epochs=2",
        "views.global_size=32",
    ]
    assert cli.main([*words, "run.folder=whole"]) == 0
    save = checkpoints.Checkpoints.save

    def fail(self: checkpoints.Checkpoints, step: int) -> None:
        save(self, step)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Checkpoints, "save", fail)
        assert cli.main([*words, "run.folder=stopped"]) == 130
    assert cli.main([*words, "run.folder=stopped", "run.resume=auto"]) == 0
    whole, resumed = (
        checkpoint.load_file(f"{run}/checkpoints/step_00000004/method.safetensors") for run in ("whole", "stopped")
    )
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


@dataclass(frozen=True)
class PatchOptions(Options):
    """Options of patches.

    Attributes:
        width: channels.
    """

    width: Count = 4


class Patches(MapBackbone):
    """One convolution."""

    options_type = PatchOptions
    options: PatchOptions

    def __init__(self, in_channels: int, options: PatchOptions = PatchOptions()) -> None:
        super().__init__(in_channels, options.width, 4)
        self.options = options
        self.patches = nn.Conv2d(in_channels, options.width, 4, 4)

    def stages(self, images: Tensor) -> list[Tensor]:
        self.check_images(images)
        return [self.patches(images)]


def test_a_backbone_family(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    module = types.ModuleType("ssl_lens.backbones.patches")
    module.FAMILY = Family(Patches, {"patches_small": PatchOptions(), "patches_wide": PatchOptions(width=8)})
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(Patches, "__module__", module.__name__)
    monkeypatch.setattr(catalog, "FAMILIES", (*catalog.FAMILIES, "patches"))
    words = ["pretrain", "tiny.yaml", "model={name: patches_wide, width: 6}", "method.out_dim=8", "run.folder=run"]
    assert cli.main(words) == 0
    assert load_backbone("run").backbone.embed_dim == 6
    assert cli.main(["pretrain", "tiny.yaml", "model={name: patches_wide, widht: 6}"]) == 2
    assert "the nearest is width" in capsys.readouterr().err


class _First(Fitted[np.ndarray]):
    def predict(self, inputs: np.ndarray) -> np.ndarray:
        return np.tile([1.0, 0.0], (len(inputs), 1))


class First(FeatureProbe):
    """Says the first class."""

    name = "first"
    kinds = (Classes,)

    def fit(self, features: np.ndarray, answers: Any, *, seed: int) -> Fitted[np.ndarray]:
        return _First()


class Share(Task):
    """How often the first class is said."""

    name = "share"
    probes = ("first",)
    metrics = ("share",)

    def divide(self, divisions: Any) -> Any:
        return divisions.classes

    def scores(self, truth: Any, said: np.ndarray) -> dict[str, float]:
        return {"share": float(np.mean(said[0].argmax(axis=1) == 0))}


def test_a_probe_and_a_task(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(PROBES, "first", First)
    monkeypatch.setitem(TASKS, "share", Share())
    run = write_run(folder / "run")
    words = ["evaluate", str(run), "--data", "images", "--labels-per-class", "all", "--seeds", "1", "--out", "out"]
    assert cli.main([*words, "--tasks", "classification", "share", "--probes", "first"]) == 0
    rows = read_rows(folder / "out")
    assert [row.value for row in rows if (row.task, row.probe, row.metric) == ("share", "first", "share")] == [1.0]
    assert {row.task for row in rows} == {"share", "classification"}
    assert cli.main([*words, "--probes", "firts"]) == 2
    assert "first" in capsys.readouterr().err


def test_a_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    module = types.ModuleType("ssl_lens.cli.greet")
    module.add_arguments = lambda parser: parser.add_argument("name")
    module.run = lambda options: print(f"hello {options.name}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(cli.COMMANDS, "greet", "say hello")
    assert cli.main(["greet", "lens"]) == 0
    assert capsys.readouterr().out == "hello lens\n"


def test_a_file_format(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_raw(file: BinaryIO, size: int) -> Any:
        yield from samples_of(array_pixels(np.frombuffer(file.read(size), "<f4").reshape(4, 4)))

    monkeypatch.setattr(reader, "_READERS", (*reader._READERS, ((".raw",), read_raw)))
    pixels = np.arange(16, dtype="<f4").reshape(4, 4)
    Path("a.raw").write_bytes(pixels.tobytes())
    (sample,) = reader.read_images(Path("a.raw"))
    assert np.array_equal(sample.image, pixels[None])
    Path("a.raw").write_bytes(pixels.tobytes()[:-1])
    with pytest.raises(reader.UnusableImage):
        list(reader.read_images(Path("a.raw")))
