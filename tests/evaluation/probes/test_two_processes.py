"""`accelerate launch` with two processes trains what one trains."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_run import write_labelled_images

from ssl_lens.cli.main import main
from ssl_lens.evaluation.table import read_predictions, read_rows

ROOT = Path(__file__).parents[3]
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]  # on a free port


def _outcome(out: Path) -> tuple[np.ndarray, dict[str, float]]:
    """Losses of every epoch, and the metrics."""
    with (out / "training.csv").open() as file:
        losses = [[float(row[key] or 0) for key in ("train_loss", "validation_loss")] for row in csv.DictReader(file)]
    rows = read_rows(out)
    return np.array(losses), {row.metric: row.value for row in rows}


def test_two_processes_equal_one(tmp_path, monkeypatch):
    """111 images, 89 of them to fit, in batches of 22 or 23: nothing divides by two."""
    data = write_labelled_images(tmp_path / "data", per_class=69)
    (data / "split.txt").write_text("".join(f"{name}/{i:03d}.npy\n" for name in ("arc", "ring") for i in range(13)))
    (data / "arc" / "068.npy").unlink()
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path / "cache"))
    training = "swin_micro model.stages=2 model.drop_path=0 data.center_crop=32 --labels-per-class all --seeds 1"
    training += f" --epochs 2 --batch-size 24 --lr 2e-3 --data {data} --split {data}/split.txt"
    assert main(["finetune", *training.split(), "--out", str(tmp_path / "one")]) == 0
    done = subprocess.run(
        [*LAUNCH, "eval/finetune.py", *training.split(), "--out", tmp_path / "two"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("classification\n") == 1, "one process speaks"
    losses, alone = _outcome(tmp_path / "one")
    shared_losses, shared = _outcome(tmp_path / "two")
    assert losses[1, 0] < 0.9 * losses[0, 0]
    assert losses.min() > 0
    np.testing.assert_allclose(shared_losses, losses, rtol=1e-5)
    assert shared["std_8x45"] == pytest.approx(alone["std_8x45"], rel=1e-4)
    assert (shared["accuracy"], shared["parameters"]) == (alone["accuracy"], alone["parameters"])
    ours, theirs = (read_predictions(tmp_path / name)[0] for name in ("one", "two"))
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-5)
