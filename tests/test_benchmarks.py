"""Benchmarks that no other test runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_gpu_session_runs_small_on_the_cpu(tmp_path: Path) -> None:
    """Every part finishes, and one that cannot is a line."""
    out, cache = tmp_path / "out", {"SSL_LENS_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "benchmarks/gpu.py", "--smoke", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **cache})
    assert done.returncode == 0, done.stderr
    results = json.loads((out / "results.json").read_text())
    measured = ["esvit_swin bf16", "esvit_equiv bf16", "esvit_swin no", "esvit_equiv no"]
    assert list(results) == ["machine", "tests", *measured, "pretraining", "knn", "linear_probe"]
    assert not [part for part, found in results.items() if "failed" in found], done.stdout
    for part in measured:
        assert results[part]["images_per_s"] == pytest.approx(1000 * 6 / results[part]["step_ms"])
        assert 0 < results[part]["views_ms"] < results[part]["step_ms"]
    assert results["pretraining"]["epochs"] == 2
    scores = [value for command in ("knn", "linear_probe") for value in results[command].values()]
    assert len(scores) == 2 * 2 * 2 * 2  # commands, methods, numbers of labels, metrics
    assert all(0 <= score <= 1 for score in scores)

    command[-1:] = [str(tmp_path / "late"), "--minutes", "0"]
    late = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **cache})
    assert late.returncode == 0, late.stderr
    results = json.loads((tmp_path / "late" / "results.json").read_text())
    assert results["tests"] == {"failed": "RuntimeError: no time left"}
    assert all("failed" in found for part, found in results.items() if part != "machine")


@pytest.mark.slow
def test_simulation_is_faster_than_the_plain_loop(tmp_path: Path) -> None:
    """Which it may be called for the same images only: the benchmark itself compares them."""
    command = [sys.executable, "benchmarks/simulate.py", "--repeats", "1", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "simulate.json").read_text())["comparisons"]
    assert len(rows) == 24
    assert all(row["ratio"] > 2 for row in rows)


@pytest.mark.slow
def test_the_supervised_baselines_run_small_on_the_cpu(tmp_path: Path) -> None:
    """One network, one epoch, through the GPU session; what is finished is not done again."""
    out, cache = tmp_path / "out", {"SSL_LENS_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "benchmarks/gpu.py", "--smoke", "--supervised", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **cache})
    assert done.returncode == 0, done.stderr
    results = json.loads((out / "results.json").read_text())
    assert list(results) == ["machine", "supervised"]
    assert 0 <= results["supervised"]["cvt_small_lens"] <= 1
    row = (out / "supervised" / "table.md").read_text().splitlines()[2].split(" | ")
    assert row[:2] == ["| `cvt_small_lens`", "463,235"]  # three classes here
    assert row[6] == "1 |"
