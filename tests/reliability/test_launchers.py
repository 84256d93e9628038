"""What becomes of a run whose launcher is stopped, or one of whose processes ends or hangs."""

import contextlib
import os
import signal
import subprocess
import time

import pytest

SLOW = pytest.mark.reliability
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGKILL)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("launcher", ["python", "accelerate 1", "accelerate 2", "torchrun 2"])
@SLOW
def test_a_signal_to_the_launcher_saves_and_ends_the_run(runs, launcher, number):
    """No process stays behind; kill -9 of the process itself is the one that saves nothing."""
    port = 29600 + SIGNALS.index(number) + 10 * len(launcher)
    process = runs.launch(launcher, "a", port=port)
    runs.wait_for_steps("a", 4)
    process.send_signal(number)
    process.wait(60)
    assert process.returncode != 0
    _wait_until_alone(runs)
    if launcher == "python" and number == signal.SIGKILL:
        assert runs.status("a")["state"] == "running"  # it could not say
        return
    status = runs.status("a")
    assert status["state"] == "stopped", (status, runs.said("a"))
    assert status["step"] >= 4
    measured = (runs.folder("a") / "metrics.jsonl").read_bytes()
    assert runs.finish("a", epochs=status["step"] // 3 + 1) == 0, runs.said("a")
    assert (runs.folder("a") / "metrics.jsonl").read_bytes().startswith(measured), "it began again"
    assert runs.status("a")["state"] == "finished"


def test_the_end_of_a_launcher_stops_the_process_that_it_started(runs):
    """One process of `accelerate launch`, which passes no signal on."""
    process = runs.launch("accelerate 1", "a")
    runs.wait_for_steps("a", 4)
    process.kill()
    process.wait()
    _wait_until_alone(runs)
    assert runs.status("a")["state"] == "stopped"


@SLOW
def test_a_rank_that_is_killed_ends_the_run(runs):
    process = runs.launch("torchrun 2", "a", port=29691)
    runs.wait_for_steps("a", 4)
    os.kill(_ranks(runs)[1], signal.SIGKILL)
    assert process.wait(60) != 0
    _wait_until_alone(runs)
    assert runs.status("a")["state"] in ("failed", "stopped")
    assert runs.finish("a", epochs=runs.status("a")["step"] // 3 + 1 if runs.status("a")["step"] else 2) == 0


@SLOW
def test_a_rank_that_hangs_ends_the_run_after_its_time(runs):
    process = runs.launch("torchrun 2", "a", "run.rank_timeout_s=5", port=29692)
    runs.wait_for_steps("a", 4)
    hung = _ranks(runs)[1]
    os.kill(hung, signal.SIGSTOP)
    try:
        assert process.wait(90) != 0
    finally:
        with contextlib.suppress(ProcessLookupError):  # the launcher has killed it
            os.kill(hung, signal.SIGCONT)
    _wait_until_alone(runs)
    assert runs.said("a").count("error: another process of this run has ended, or has not answered for") == 1
    assert "run.resume=auto continues" in runs.said("a")
    assert runs.status("a")["state"] == "failed"


@SLOW
def test_an_error_of_another_rank_is_shown_once(runs):
    """Both ranks meet it, and one says it; no traceback of a collective stands above."""
    process = runs.launch("torchrun 2", "a", "data.stretch=none", "data.path=/nowhere", port=29693)
    assert process.wait(100) != 0
    assert runs.said("a").count("/nowhere does not exist") == 1
    assert runs.status("a")["state"] == "failed"
    assert "/nowhere does not exist" in runs.status("a")["reason"]


def _ranks(runs) -> list[int]:
    """Processes of the run by rank."""
    found = {}
    for pid in _processes(runs):
        with open(f"/proc/{pid}/environ", "rb") as file:
            words = dict(word.partition(b"=")[::2] for word in file.read().split(b"\0"))
        if b"LOCAL_RANK" in words:
            found[int(words[b"RANK"])] = pid
    return [found[rank] for rank in sorted(found)]


def _processes(runs) -> list[int]:
    done = subprocess.run(["pgrep", "-f", str(runs.root / "a.yaml")], capture_output=True, text=True)
    return [int(pid) for pid in done.stdout.split()]


def _wait_until_alone(runs) -> None:
    end = time.monotonic() + 40
    while _processes(runs):
        assert time.monotonic() < end, runs.said("a")
        time.sleep(0.1)
