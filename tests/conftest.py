"""Fixtures shared by the whole suite."""

import ctypes
import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest


def _folder_from(variable: str) -> Path:
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip(f"{variable} is not set")
    if not Path(folder).is_dir():
        pytest.skip(f"{variable}={folder} is not a folder")
    return Path(folder)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test wrote, such as names of files that are not text, as the suite's processes can tell each other."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder with inputs and outputs of the reference algorithms (`SSL_LENS_GOLDEN`)."""
    return _folder_from("SSL_LENS_GOLDEN")


@pytest.fixture(scope="session")
def lens_data() -> Path:
    """Folder with real and peer-made lens images (`SSL_LENS_DATA`)."""
    return _folder_from("SSL_LENS_DATA")


@pytest.fixture
def no_override() -> Iterator[None]:
    """Permissions of files bind the test, even where it runs as root.

    Root stays root, or Python could no longer import, and only gives up for a while to read and write what
    permissions deny: the Linux capabilities DAC_OVERRIDE and DAC_READ_SEARCH, of this thread and of those it starts.
    """
    if os.geteuid() != 0:
        yield
        return
    if sys.platform != "linux":
        pytest.skip("root reads everything")
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this thread
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.capget(header, sets) == 0
    held = sets[0]
    sets[0] = held & ~0b110
    assert libc.capset(header, sets) == 0
    yield
    sets[0] = held
    assert libc.capset(header, sets) == 0


@pytest.fixture
def no_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports and saved networks without their ONNX file, which takes ten seconds; tests/representation holds that."""
    monkeypatch.setattr("ssl_lens.representation.export.write_onnx", lambda *arguments: None)
    monkeypatch.setattr("ssl_lens.representation.export.onnx_difference", lambda *arguments: None)
