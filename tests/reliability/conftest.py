"""Runs that are stopped, killed and starved."""

import multiprocessing
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


@pytest.fixture
def runs(tmp_path: Path, warm_processes: Any) -> Iterator[Runs]:
    made = Runs(tmp_path, warm_processes)
    yield made
    made.end_all()
