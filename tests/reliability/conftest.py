"""Runs that are stopped, killed and starved."""

import multiprocessing
import time
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest
from whole_runs import Runs


@pytest.fixture(scope="session")
def warm_processes() -> Any:
    """Processes that have imported all they need; those of tests before, which had not, end."""
    forkserver._forkserver._stop()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["matplotlib.figure", "tensorboard", "ssl_lens.recipe.compose", "whole_runs"])
    return context


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, warm_processes: Any) -> tuple[tuple[str, str], float]:
    """Outcome of a run that nothing disturbs, and how many seconds it takes."""
    runs, began = Runs(tmp_path_factory.mktemp("whole"), warm_processes), time.monotonic()
    assert runs.finish("whole") == 0
    return runs.outcome("whole"), time.monotonic() - began


@pytest.fixture
def runs(tmp_path: Path, warm_processes: Any) -> Iterator[Runs]:
    made = Runs(tmp_path, warm_processes)
    yield made
    made.end_all()
