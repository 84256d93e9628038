"""Whole runs in processes of their own, that are stopped, killed and starved."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from ssl_lens.recipe.compose import pretrain
from ssl_lens.recipe.recipe import load_recipe

ROOT = Path(__file__).parents[1]
LAUNCHERS = {
    "python": ("ssl_lens", "pretrain"),
    "accelerate 1": ("accelerate.commands.launch", "--num_processes=1", "--cpu", "pretrain.py"),
    "accelerate 2": ("accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--main_process_port={port}",
                     "pretrain.py"),
    "torchrun 2": ("torch.distributed.run", "--nproc_per_node=2", "--master_port={port}", "pretrain.py"),
}  # fmt: skip
TINY = """
data: {{path: {images}}}
views: {{global_size: 16, local_sizes: [8], local_counts: [1]}}
model: {{name: swin_micro, embed_dim: 8, depths: [1, 1], num_heads: [1, 2], patch_size: 2, window_size: 4}}
method: {{out_dim: 24, head_hidden_dim: 16, head_bottleneck_dim: 8, ema_momentum: 0.9}}
optim: {{epochs: {epochs}, batch_size: 8, warmup_epochs: 1, lr: 1e-3}}
run: {{folder: {folder}, device: cpu, cpu_threads: 1, log_steps: 1, resume: auto}}
"""
STEPS_PER_EPOCH = 3


class Runs:
    """Runs on 24 images in a folder; `start` is the real `pretrain` in a process that has imported all it needs."""

    def __init__(self, root: Path, context: Any) -> None:
        self.root, self._context = root, context
        rng = np.random.default_rng(0)
        for i in range(24):
            (root / "images" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
            np.save(root / "images" / "ab"[i % 2] / f"{i:02d}.npy", rng.gamma(2.0, 1.0, (20, 20)))

    def folder(self, name: str) -> Path:
        return self.root / name

    def recipe(self, name: str, epochs: int) -> Path:
        file = self.root / f"{name}.yaml"
        file.write_text(TINY.format(images=self.root / "images", epochs=epochs, folder=self.folder(name)))
        return file

    def start(self, name: str, *overrides: str, epochs: int = 14, before: Callable[[], None] | None = None) -> Any:
        """A process that runs; `before` prepares it, such as by breaking something."""
        arguments = (str(self.recipe(name, epochs)), overrides, str(self.root / f"{name}.log"), before)
        process = self._context.Process(target=_pretrain, args=arguments)
        process.start()
        return process

    def finish(self, name: str, *overrides: str, **how: Any) -> int:
        """Runs to the end; the exit status."""
        process = self.start(name, *overrides, **how)
        process.join(120)
        assert process.exitcode is not None, "it does not end"
        return process.exitcode

    def launch(self, launcher: str, name: str, *overrides: str, epochs: int = 2000, port: int = 0) -> subprocess.Popen:
        """A real launcher; what it says goes to a file (see `said`)."""
        words = [word.format(port=port) for word in LAUNCHERS[launcher]]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
        with (self.root / f"{name}.log").open("w") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *words, str(self.recipe(name, epochs)), *overrides],
                cwd=ROOT,
                env={**environment, "SSL_LENS_CACHE": str(self.root / "cache")},
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=_heed_signals,
            )

    def end_all(self) -> None:
        """Ends what a failed test has left running."""
        subprocess.run(["pkill", "-KILL", "-f", f"{self.root}/"])

    def said(self, name: str) -> str:
        return (self.root / f"{name}.log").read_text()

    def status(self, name: str) -> dict[str, Any]:
        return json.loads((self.folder(name) / "status.json").read_text())

    def wait_for_steps(self, name: str, steps: int) -> None:
        """Until so many have been measured."""
        file, end = self.folder(name) / "metrics.jsonl", time.monotonic() + 120
        while not file.is_file() or file.read_bytes().count(b"\n") < steps:
            assert time.monotonic() < end, self.said(name)
            time.sleep(0.02)

    def outcome(self, name: str) -> tuple[str, str]:
        """Hashes of all weights and momenta after the last step, and of all that was measured."""
        last = max((self.folder(name) / "checkpoints").glob("step_????????"))
        saved = torch.load(last / "optimizer.pt", weights_only=True)["optimizer"]["state"]
        tensors = load_file(last / "method.safetensors") | load_file(last / "observed.safetensors")
        tensors |= {f"{i}.{key}": value for i, values in saved.items() for key, value in values.items()}
        weights = hashlib.sha256()
        for key in sorted(tensors):
            weights.update(key.encode() + tensors[key].numpy().tobytes())
        lines = [json.loads(line) for line in (self.folder(name) / "metrics.jsonl").read_text().splitlines()]
        measured = [{key: value for key, value in line.items() if key != "images_per_s"} for line in lines]
        return weights.hexdigest(), hashlib.sha256(json.dumps(measured).encode()).hexdigest()

    def leftovers(self, name: str) -> list[str]:
        """What should not be there after the end: files and folders that somebody was making."""
        found = (path.relative_to(self.folder(name)).as_posix() for path in self.folder(name).rglob(".*"))
        return sorted(path for path in found if path != ".lock")


def _heed_signals() -> None:
    """What the shell that started the tests lets its commands ignore: SIGINT behind `&`, SIGHUP behind `nohup`."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _pretrain(recipe: str, overrides: tuple[str, ...], log: str, before: Callable[[], None] | None) -> None:
    """In its own process: as the command, without the seconds that its imports take."""
    with open(log, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ["SSL_LENS_CACHE"] = str(Path(recipe).parent / "cache")
    if before is not None:
        before()
    sys.exit(_as_the_command(recipe, overrides))


def _as_the_command(recipe: str, overrides: tuple[str, ...]) -> int:
    from ssl_lens.engine.signals import InterruptedRun
    from ssl_lens.errors import one_line_errors

    def main() -> int:
        try:
            pretrain(load_recipe(recipe, overrides))
        except InterruptedRun as stop:
            print(stop, file=sys.stderr)
            return stop.exit_status
        return 0

    return one_line_errors(main)()
