"""What only a GPU can show, in one command of fixed length: GPU tests, step times, a short pretraining, its evaluation.

    python benchmarks/gpu.py --out FOLDER [--data DIR] [--minutes 9] [key=value ...]

DIR has one folder of images per class; a fifth of them is kept from pretraining, to evaluate on. Without it, lenses
are simulated. `key=value` is for every pretraining, such as data.center_crop=128 data.bin=2 for images of 150 px.
`--supervised` trains the supervised baselines at full size on DIR instead (`benchmarks/baselines.py`), until the time
is up. Every part is a process with its share of the time. FOLDER/results.json has what the finished ones found, and one
line for each that failed; FOLDER/log.txt what they printed; FOLDER/pretraining the run. `--smoke` tries it all on the
CPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from side_by_side import time_in_turn

from ssl_lens.data.images import load_images
from ssl_lens.data.splits import write_names
from ssl_lens.engine.loop import Step
from ssl_lens.errors import InputError, one_line_errors
from ssl_lens.evaluation.division import Divisions, Question
from ssl_lens.recipe import images as recipe_images
from ssl_lens.recipe.compose import compose
from ssl_lens.recipe.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[1]
PRETRAINED = "esvit_equiv"
TEST_SECONDS, MEASURE_SECONDS, EVALUATION_SECONDS = 120, 75, 100  # at most; the last for both evaluations
STEPPING_SECONDS = 30  # at most, of a measurement
START_SECONDS, SAVE_SECONDS = 25, 30  # of a pretraining: before its first step, and when it is stopped
SHARE_OF_STEPS = 0.8  # of a pretraining's time; reports and checkpoints take the rest


class Size(NamedTuple):
    overrides: tuple[str, ...]
    simulated_per_class: int
    warmup_steps: int
    timed_steps: int
    labels_per_class: tuple[str, ...]
    tests: str
    supervised: tuple[str, ...]


FULL = Size(
    (),
    simulated_per_class=1000,
    warmup_steps=5,
    timed_steps=25,
    labels_per_class=("10", "100", "all"),
    tests="tests",
    supervised=("--full",),
)
SMOKE = Size(
    (
        *("run.device=cpu", "optim.batch_size=6", "optim.epochs=2", "optim.warmup_epochs=0", "optim.lr=1e-3"),
        *("model.name=swin_micro", "model.stages=2", "method.out_dim=32", "method.head_hidden_dim=16"),
        *("data.center_crop=40", "views.global_size=16", "views.local_sizes=[8]", "views.local_counts=[2]"),
    ),
    simulated_per_class=10,
    warmup_steps=1,
    timed_steps=2,
    labels_per_class=("5", "all"),
    tests="tests/recipe/test_gpu.py",
    supervised=("cvt_small_lens", "data.center_crop=40", "data.bin=1", "--epochs", "1"),
)


class EnoughSteps(Exception):  # noqa: N818, a measurement's end, not an error
    """The stopwatch has seen all steps it was to time."""


class Stopwatch:
    """Notes when each step ends; the finite check in a step waits for the device."""

    def __init__(self, steps: int) -> None:
        self.steps, self.ends = steps, []

    def after_step(self, step: Step) -> None:
        self.ends.append(time.perf_counter())
        if len(self.ends) > self.steps or self.ends[-1] - self.ends[0] > STEPPING_SECONDS:
            raise EnoughSteps


def measure(recipe: str, overrides: list[str], size: Size) -> dict[str, float]:
    """Medians over steady steps of a pretraining, and over its views alone."""
    with TemporaryDirectory() as folder:
        endless = ("optim.epochs=10000", "run.checkpoint_epochs=10000", f"run.folder={folder}/run")
        pretraining = compose(load_recipe(recipe, [*overrides, *endless]))
        stopwatch = Stopwatch(size.warmup_steps + size.timed_steps)
        pretraining.observers.append(stopwatch)
        with suppress(EnoughSteps):
            pretraining.run()
    ends = stopwatch.ends[size.warmup_steps :]
    step_s = statistics.median(after - before for before, after in zip(ends, ends[1:], strict=False))
    on_gpu = pretraining.accelerator.device.type == "cuda"
    peak = {"peak_memory_gib": torch.cuda.max_memory_allocated() / 2**30} if on_gpu else {}

    def make_views() -> None:
        for raw, index in pretraining.batches.at(0):
            pretraining.multicrop(pretraining.preprocess.linear(raw), index, seed=0, epoch=0)
        if on_gpu:
            torch.cuda.synchronize()

    views_s = statistics.median(time_in_turn({"views": make_views}, size.timed_steps)["views"])
    batch_size = pretraining.recipe.optim.batch_size
    times = {"step_ms": 1000 * step_s, "images_per_s": batch_size / step_s, "views_ms": 1000 * views_s}
    return {"batch_size": batch_size, "timed_steps": len(ends) - 1, **times, **peak}


class Session:
    """The parts, one after the other, until the time is up.

    Raises: InputError if the images cannot be used.
    """

    def __init__(self, options: argparse.Namespace, size: Size) -> None:
        self.deadline = time.monotonic() + 60 * options.minutes
        self.out, self.size, self.smoke = options.out.resolve(), size, options.smoke
        self.run_folder, self.split, self.data = self.out / "pretraining", self.out / "split.txt", options.data
        if self.data is None:
            simulate = load_recipe(ROOT / f"recipes/{PRETRAINED}.yaml").simulate
            self.data = recipe_images.simulated_set(
                simulate.model_copy(update={"count_per_class": size.simulated_per_class})
            )
        self.data = self.data.resolve()
        images = load_images(self.data)
        division = Divisions(images, Question(labels_per_class=[None])).classes
        self.out.mkdir(parents=True, exist_ok=True)
        write_names(self.split, images.subset(division.test).names)
        self.n_images = len(division.train)
        self.overrides = [*size.overrides, *options.overrides, f"data.path={self.data}", f"data.exclude={self.split}"]
        machine = {"gpu": "none" if options.smoke else torch.cuda.get_device_name(), "torch": torch.__version__}
        self.results: dict[str, dict] = {"machine": machine | {"pretraining_images": self.n_images}}

    def all_parts(self, *, supervised: bool) -> None:
        if supervised:
            self.part("supervised", self.supervised)
            return
        self.part("tests", self.tests)
        for precision in ("bf16", "no"):
            for recipe in ("esvit_swin", PRETRAINED):
                self.part(f"{recipe} {precision}", partial(self.steps, recipe, precision))
        self.part("pretraining", self.pretraining)
        for command in ("knn", "linear_probe"):
            self.part(command, partial(self.evaluation, command))

    def part(self, name: str, work: Callable[[], dict]) -> None:
        try:
            found = work()
        except Exception as error:  # whatever it is, the other parts go on
            found = {"failed": f"{type(error).__name__}: {error}".splitlines()[0]}
        self.results[name] = found
        (self.out / "results.json").write_text(json.dumps(self.results, indent=2) + "\n", encoding="utf-8")
        for key, value in found.items():
            print(f"{name:18} {key:36} {f'{value:.4g}' if isinstance(value, float) else value}", flush=True)

    def command(self, *words: str | Path, seconds: float) -> str:
        """Runs Python with `words`; its last line on stdout. Raises: RuntimeError if it fails or is not done."""
        seconds = min(seconds, self.deadline - time.monotonic())
        if seconds < 1:
            raise RuntimeError("no time left")
        command = [sys.executable, *map(str, words)]
        process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            output, errors = process.communicate(timeout=seconds)
            said = [line for line in (errors or output).splitlines() if line.strip() and "%|" not in line]  # no bars
            problem = f"exit status {process.returncode}: {said[-1] if said else ''}" if process.returncode else None
        except subprocess.TimeoutExpired:
            process.terminate()  # on which a pretraining saves
            with suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=SAVE_SECONDS)
            process.kill()
            output, errors = process.communicate()
            problem = f"not done after {seconds:.0f} s"
        with (self.out / "log.txt").open("a", encoding="utf-8") as log:
            log.write(f"\n=== {' '.join(command)}\n{output}\n{errors}\n")
        if problem:
            raise RuntimeError(problem)
        return output.strip().splitlines()[-1]

    def tests(self) -> dict:
        words = ("-m", "pytest", "-m", "gpu", "--continue-on-collection-errors", self.size.tests)
        return {"summary": self.command(*words, seconds=TEST_SECONDS)}

    def steps(self, name: str, precision: str) -> dict:
        options = ("--out", self.out, "--measure", *(["--smoke"] if self.smoke else []))
        recipe = (f"recipes/{name}.yaml", *self.overrides, f"optim.precision={precision}")
        return json.loads(self.command(__file__, *options, *recipe, seconds=MEASURE_SECONDS))

    def pretraining(self) -> dict:
        """As many epochs as the time allows and the recipe asks for."""
        path, measured = f"recipes/{PRETRAINED}.yaml", self.results[f"{PRETRAINED} bf16"]
        if "failed" in measured:
            raise RuntimeError(f"the time of a step is unknown, as {PRETRAINED} bf16 failed")
        epoch_s = measured["step_ms"] / 1000 * (self.n_images // measured["batch_size"])
        seconds = self.deadline - time.monotonic() - EVALUATION_SECONDS - SAVE_SECONDS
        affordable = int(SHARE_OF_STEPS * (seconds - START_SECONDS) / epoch_s)
        epochs = max(1, min(affordable, load_recipe(ROOT / path, self.overrides).optim.epochs))
        length = (f"optim.epochs={epochs}", f"optim.warmup_epochs={epochs // 10}")
        saving = (f"run.checkpoint_epochs={max(1, epochs // 4)}", f"run.folder={self.run_folder}")
        self.command("pretrain.py", path, *self.overrides, *length, *saving, seconds=seconds)
        lines = (self.run_folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        first, *_, last = records = [json.loads(line) for line in lines]
        change = {f"{key} first, last": [round(end[key], 4) for end in (first, last)] for key in ("loss", "rankme")}
        return {"epochs": epochs, "images_per_s": statistics.median(r["images_per_s"] for r in records), **change}

    def supervised(self) -> dict:
        """Accuracies of the networks that were trained in time; FOLDER/supervised/table.md has the rest."""
        out = self.out / "supervised"
        where = ("--data", self.data, "--split", self.split, "--out", out)
        with suppress(RuntimeError):  # out of time: what is finished is in the table
            self.command("benchmarks/baselines.py", *where, *self.size.supervised, seconds=float("inf"))
        lines = (out / "table.md").read_text(encoding="utf-8").splitlines()[2:]
        return {name.strip("` "): float(accuracy) for _, name, _, accuracy, *_ in (line.split("|") for line in lines)}

    def evaluation(self, command: str) -> dict:
        out = self.out / command
        where = ("--data", self.data, "--split", self.split, "--out", out)
        what = ("--untrained", "--seeds", "3", "--labels-per-class", *self.size.labels_per_class)
        self.command(f"eval/{command}.py", self.run_folder, *where, *what, seconds=EVALUATION_SECONDS)
        rows = json.loads((out / "results.json").read_text(encoding="utf-8"))["summary"]
        scores = ("accuracy", "auc")
        return {
            f"{row['target']}, {row['labels']} labels, {row['metric']}": row["mean"]
            for row in rows
            if row["metric"] in scores
        }


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="a new one, for results")
    parser.add_argument("--data", type=Path, metavar="DIR", help="labelled images; default: simulated lenses")
    parser.add_argument("--minutes", type=float, default=9, help="all parts together (default %(default)s)")
    parser.add_argument("--smoke", action="store_true", help="tiny networks and few steps, on the CPU")
    parser.add_argument("--measure", action="store_true", help="only time a recipe, given before key=value")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for every pretraining")
    parser.add_argument("--supervised", action="store_true", help="only the supervised baselines, at full size")
    options = parser.parse_args()
    size = SMOKE if options.smoke else FULL
    if not options.smoke and not torch.cuda.is_available():
        raise InputError("no CUDA device is visible to torch; give --smoke to try everything small on the CPU")
    if options.measure:
        recipe, *overrides = options.overrides
        print(json.dumps(measure(recipe, overrides, size)))
        return
    if options.out.exists() and any(options.out.iterdir()):
        raise InputError(f"--out {options.out} is not empty; give a new folder")
    Session(options, size).all_parts(supervised=options.supervised)


if __name__ == "__main__":
    sys.exit(main())
