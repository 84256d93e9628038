"""Training in tests runs on one thread, and keeps its images of others apart."""

import pytest

from ssl_lens.evaluation.probes import trainer


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "cpu_count", lambda: 1)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True)
def _no_onnx(no_onnx: None) -> None:
    """What is saved here is loaded from its safetensors."""
