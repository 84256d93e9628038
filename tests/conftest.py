"""Fixtures shared by the whole suite."""

import os
from pathlib import Path

import pytest


def _folder_from(variable: str) -> Path:
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip(f"{variable} is not set")
    if not Path(folder).is_dir():
        pytest.skip(f"{variable}={folder} is not a folder")
    return Path(folder)


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder with inputs and outputs of the reference algorithms (`SSL_LENS_GOLDEN`)."""
    return _folder_from("SSL_LENS_GOLDEN")


@pytest.fixture(scope="session")
def lens_data() -> Path:
    """Folder with real and peer-made lens images (`SSL_LENS_DATA`)."""
    return _folder_from("SSL_LENS_DATA")
