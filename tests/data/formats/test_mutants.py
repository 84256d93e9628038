"""Readers fed with thousands of damaged files: each gives images or one line, in time and memory, and says no more."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import mutants
import pytest

PROGRAM = Path(mutants.__file__)


def fed(count: int, first: int, *kinds: str) -> dict[str, dict[str, int]]:
    """What became of mutants: a process that ended otherwise fails with the last one that it announced."""
    command = [sys.executable, str(PROGRAM), str(count), str(first), *kinds]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    *announced, last = process.stdout.splitlines() or [""]
    assert process.returncode == 0, f"{last}: {process.returncode} {process.stderr[-600:]}"
    assert len(announced) == count * len(kinds)
    return json.loads(last)


def test_two_hundred_mutants_of_every_kind():
    results = fed(200, 0, *mutants.KINDS)
    assert {kind: sum(counts.values()) for kind, counts in results.items()} == dict.fromkeys(mutants.KINDS, 200)
    assert all(counts["refused"] >= 20 for counts in results.values())
    assert sum(counts.get("images", 0) for counts in results.values()) >= 100


@pytest.mark.slow
@pytest.mark.parametrize("kind", mutants.KINDS)
def test_four_thousand_mutants_of_a_kind(kind):
    counts = fed(4000, 200, kind)[kind]
    assert sum(counts.values()) == 4000
    assert min(counts["refused"], counts["images"]) >= 40


FAULTS = {
    "hangs in C": ("sum(range(10**12))", -signal.SIGALRM),
    "takes memory": ("return refused('') if bytes(2 << 30) else ''", 1),
    "crashes": ("import ctypes; ctypes.string_at(0)", -signal.SIGSEGV),
    "says two lines": ("return refused('a\\nb')", 1),
    "warns": ("import warnings; warnings.warn('damaged'); return 'images'", 1),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_reader_at_fault_is_found(fault):
    """The control: what the tests above look for, they see."""
    body, status = FAULTS[fault]
    code = f"""
import mutants
from mutants import refused
sound, mutants.SECONDS = mutants.read, 1
def read(suffix, data):
    if read.calls < len(mutants.whole_files(suffix)) + 2:
        read.calls += 1
        return sound(suffix, data)
    {body}
read.calls, mutants.read = 0, read
mutants.main(5, 0, ['.npy'])
"""
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=PROGRAM.parent
    )
    assert process.returncode == status
    if fault != "warns":
        assert process.stdout.splitlines()[-1] == ".npy 2"
