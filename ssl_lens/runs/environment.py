"""Where a run was made, and what of that decides its bits."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ssl_lens.errors import InputError
from ssl_lens.files import read_json

REPORTED_PACKAGES = ("ssl_lens", "torch", "timm", "lightly", "e2cnn", "accelerate", "numpy", "lenstronomy")


def environment(processes: int) -> dict[str, Any]:
    """Versions, processors and command; `arithmetic` is what the bits of a run depend on besides its recipe."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "packages": {name: _installed(name) for name in REPORTED_PACKAGES},
        "arithmetic": {
            "torch": str(torch.__version__),
            "timm": _installed("timm"),
            "processes": processes,
            "cpu_threads": torch.get_num_threads(),
            "cpu_instructions": torch.backends.cpu.get_cpu_capability(),
            "gpus": gpus,
        },
    }


def recorded_arithmetic(file: Path) -> dict[str, Any]:
    """The `arithmetic` of an environment that was written; empty if there is none."""
    try:
        arithmetic = read_json(file).get("arithmetic")
    except InputError:
        return {}
    return arithmetic if isinstance(arithmetic, dict) else {}


def _installed(package: str) -> str | None:
    """The version of a package; None for one of an extra that is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
