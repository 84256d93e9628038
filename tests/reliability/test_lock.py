"""Two starts in one folder."""

import contextlib
import json

import pytest

from ssl_lens.engine import session


@pytest.mark.parametrize("lock", [True, False], ids=["locked", "without a lock"])
def test_of_two_starts_one_trains(runs, lock):
    """The control without a lock writes the steps of both into one file."""
    first = runs.start("a", before=None if lock else _no_lock)
    runs.wait_for_steps("a", 2)
    status = runs.finish("a", before=None if lock else _no_lock)
    first.join(60)
    steps = [json.loads(line)["step"] for line in (runs.folder("a") / "metrics.jsonl").read_text().splitlines()]
    if lock:
        assert (status, first.exitcode) == (2, 0)
        assert f"folder={runs.folder('a')} is in use by process {first.pid} on " in runs.said("a")
        assert steps == list(range(42))
    else:
        assert len(steps) > 42 or status != 0 or first.exitcode != 0


def _no_lock() -> None:
    @contextlib.contextmanager
    def not_locked(file):
        file.parent.mkdir(exist_ok=True)
        yield

    session.locked = not_locked
