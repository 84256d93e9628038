"""What only a GPU can show, in one command of less than ten minutes.

    python benchmarks/gpu.py --out FOLDER [--data DIR] [--minutes 9] [key=value ...]

By default speed and memory: the GPU tests; two processes on the one card; a profile of a step of two recipes, as they
are and with each lever switched off, with the time that compiling takes; the memory of a step by batch and number of
prototypes. `--pretrain` trains a recipe instead, as long as there is time, and evaluates it; `--supervised` trains the
supervised baselines at full size on DIR (`benchmarks/baselines.py`).

DIR has one folder of images per class; a fifth of them is kept from pretraining, to evaluate on. Without it, lenses
are simulated. `key=value` is for every run, such as data.center_crop=128 data.bin=2 for images of 150 px. Every part
is a process with its share of the time. FOLDER/results.json has what the finished ones found, and one line for each
that failed; FOLDER/log.txt what they printed; FOLDER/profiles the pictures. `--smoke` tries it all on the CPU.
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
from typing import NamedTuple

import torch

from ssl_lens.data.images import load_images
from ssl_lens.data.splits import write_names
from ssl_lens.errors import InputError, one_line_errors
from ssl_lens.evaluation.division import Divisions, Question
from ssl_lens.recipe import images as recipe_images
from ssl_lens.recipe.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[1]
PRETRAINED = "esvit_equiv"
PROFILED = ("esvit_swin", PRETRAINED)
LEVERS = {  # what switches each of them off
    "as it is": (),
    "not compiled": ("run.compile=false",),
    "float32, not compiled": ("run.compile=false", "optim.precision=no"),
}
MEMORY = tuple((batch, out_dim) for batch in (128, 512) for out_dim in (4096, 65536))
TEST_SECONDS, PROFILE_SECONDS, MEMORY_SECONDS, RANKS_SECONDS = 100, 110, 40, 60  # at most
EVALUATION_SECONDS = 100  # at most, for both
START_SECONDS, SAVE_SECONDS = 25, 30  # of a pretraining: before its first step, and when it is stopped
SHARE_OF_STEPS = 0.8  # of a pretraining's time; reports and checkpoints take the rest
SMOKE_PATIENCE = 5  # times as long, as a CPU may be busy
GIB = 2**30


class Size(NamedTuple):
    overrides: tuple[str, ...]
    simulated_per_class: int
    timed_steps: int
    memory: tuple[tuple[int, int], ...]
    labels_per_class: tuple[str, ...]
    tests: str
    supervised: tuple[str, ...]


FULL = Size(
    (),
    simulated_per_class=1000,
    timed_steps=15,
    memory=MEMORY,
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
    timed_steps=1,
    memory=((4, 8),),
    labels_per_class=("5", "all"),
    tests="tests/recipe/test_gpu.py",
    supervised=("cvt_small_lens", "data.center_crop=40", "data.bin=1", "--epochs", "1"),
)


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

    def speed(self) -> None:
        """The parts of a plain call."""
        self.part("tests", self.tests)
        self.part("two ranks on one card", self.two_ranks)
        for recipe in PROFILED:
            for lever, off in LEVERS.items():
                self.part(f"{recipe}, {lever}", partial(self.profile, recipe, f"{recipe}, {lever}", *off))
        for batch, out_dim in self.size.memory:
            self.part(f"memory, batch {batch}, K {out_dim}", partial(self.memory, batch, out_dim))

    def pretrain(self) -> None:
        """The parts of `--pretrain`."""
        self.part("step", partial(self.profile, PRETRAINED, "step"))
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
        seconds = min(SMOKE_PATIENCE * seconds if self.smoke else seconds, self.deadline - time.monotonic())
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

    def profile(self, recipe: str, name: str, *overrides: str, seconds: float = PROFILE_SECONDS) -> dict:
        """Of a step of a recipe, by benchmarks/profile.py: what counts of it; its folder has the rest."""
        out = self.out / "profiles" / name.replace(", ", "_").replace(" ", "_")
        words = (f"recipes/{recipe}.yaml", *self.overrides, *overrides, "--out", out, "--steps", self.size.timed_steps)
        self.command("benchmarks/profile.py", *words, seconds=seconds)
        found = json.loads((out / "profile.json").read_text(encoding="utf-8"))
        phases = {f"{phase}_ms": 1000 * value for phase, value in found["seconds"].items()}
        memory = found["peak_memory_bytes"]
        return {
            "batch_size": found["batch_size"],
            "step_ms": 1000 * found["step_seconds"],
            **{key: found[key] for key in ("images_per_s", "share_of_peak", "first_step_seconds", "kernels")},
            "saved_mib_per_image": found["saved_bytes_per_image"] / 2**20,
            "peak_memory_gib": None if memory is None else max(memory.values()) / GIB,
            **phases,
        }

    def memory(self, batch: int, out_dim: int) -> dict:
        """Of steps of a batch with K prototypes, not compiled."""
        recipe, name = PROFILED[0], f"memory {batch} {out_dim}"
        changed = (f"optim.batch_size={batch}", f"method.out_dim={out_dim}", "run.compile=false")
        found = self.profile(recipe, name, *changed, seconds=MEMORY_SECONDS)
        return {key: found[key] for key in ("peak_memory_gib", "images_per_s", "saved_mib_per_image")}

    def two_ranks(self) -> dict:
        """The losses of an epoch by two processes that share the card over gloo, next to those of one."""
        runs = {}
        launched = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "benchmarks/one_card.py")
        for name, program in (("one", ("pretrain.py",)), ("two", launched)):
            folder = self.out / "ranks" / name
            short = ("optim.epochs=1", "optim.warmup_epochs=0", "model.drop_path=0", "run.compile=false")
            short += ("optim.precision=no", "run.log_steps=1")  # nothing to differ by but the order of sums
            batch = () if self.smoke else ("optim.batch_size=64",)
            words = (f"recipes/{PROFILED[0]}.yaml", *self.overrides, *short, *batch, f"run.folder={folder}")
            self.command(*program, *words, seconds=RANKS_SECONDS)
            lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
            runs[name] = [json.loads(line)["loss"] for line in lines]
        largest = max(abs(one - two) for one, two in zip(runs["one"], runs["two"], strict=True))
        return {"losses compared": len(runs["one"]), "largest difference": largest}

    def pretraining(self) -> dict:
        """As many epochs as the time allows and the recipe asks for."""
        path, measured = f"recipes/{PRETRAINED}.yaml", self.results["step"]
        if "failed" in measured:
            raise RuntimeError(f"the time of a step is unknown, as the profile of {PRETRAINED} failed")
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
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for every run")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--pretrain", action="store_true", help="train a recipe and evaluate it instead")
    instead.add_argument("--supervised", action="store_true", help="the supervised baselines, at full size, instead")
    options = parser.parse_args()
    size = SMOKE if options.smoke else FULL
    if not options.smoke and not torch.cuda.is_available():
        raise InputError("no CUDA device is visible to torch; give --smoke to try everything small on the CPU")
    if options.out.exists() and any(options.out.iterdir()):
        raise InputError(f"--out {options.out} is not empty; give a new folder")
    session = Session(options, size)
    if options.supervised:
        session.part("supervised", session.supervised)
    elif options.pretrain:
        session.pretrain()
    else:
        session.speed()


if __name__ == "__main__":
    sys.exit(main())
