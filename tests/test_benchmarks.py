"""Benchmarks that no other test runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def gpu_session(out: Path, *words: str) -> tuple[dict[str, dict], str]:
    """What the session finds on the CPU, and what it prints."""
    command = [sys.executable, "benchmarks/gpu.py", "--smoke", "--out", str(out), *words]
    environment = {**os.environ, "SSL_LENS_CACHE": str(out.parent / "cache")}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads((out / "results.json").read_text()), done.stdout


@pytest.mark.slow
def test_the_gpu_session_runs_small_on_the_cpu(tmp_path: Path) -> None:
    """Every part finishes."""
    results, printed = gpu_session(tmp_path / "out")
    levers = ("as it is", "not compiled", "float32, not compiled")
    profiles = [f"{recipe}, {lever}" for recipe in ("esvit_swin", "esvit_equiv") for lever in levers]
    assert list(results) == ["machine", "tests", "two ranks on one card", *profiles, "memory, batch 4, K 8"]
    assert not [part for part, found in results.items() if "failed" in found], printed
    for part in profiles:
        assert results[part]["images_per_s"] == pytest.approx(1000 * 6 / results[part]["step_ms"])
        assert 0 < results[part]["views_ms"] < results[part]["step_ms"]
    assert results["two ranks on one card"]["losses compared"] == 4
    assert results["two ranks on one card"]["largest difference"] < 1e-4
    assert len(list((tmp_path / "out" / "profiles").glob("*/profile.png"))) == 7


@pytest.mark.slow
def test_the_gpu_session_pretrains_small_on_the_cpu(tmp_path: Path) -> None:
    """Every part finishes, and one that cannot is a line."""
    results, printed = gpu_session(tmp_path / "out", "--pretrain")
    assert list(results) == ["machine", "step", "pretraining", "knn", "linear_probe"]
    assert not [part for part, found in results.items() if "failed" in found], printed
    assert results["pretraining"]["epochs"] == 2
    scores = [value for command in ("knn", "linear_probe") for value in results[command].values()]
    assert len(scores) == 2 * 2 * 2 * 2  # commands, methods, numbers of labels, metrics
    assert all(0 <= score <= 1 for score in scores)

    results, _ = gpu_session(tmp_path / "late", "--minutes", "0")
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
    out = tmp_path / "out"
    results, _ = gpu_session(out, "--supervised")
    assert list(results) == ["machine", "supervised"]
    assert 0 <= results["supervised"]["cvt_small_lens"] <= 1
    row = (out / "supervised" / "table.md").read_text().splitlines()[2].split(" | ")
    assert row[:2] == ["| `cvt_small_lens`", "463,235"]  # three classes here
    assert row[6] == "1 |"
