"""Which extra of the package installs a library that is missing."""

from __future__ import annotations

# Name of an imported library: the extra to install. `tests/test_packaging.py` holds it to pyproject.toml.
EXTRAS = {
    "PIL": "data",
    "astropy": "data",
    "braceexpand": "data",
    "fsspec": "data",
    "h5py": "data",
    "matplotlib": "data",
    "pyarrow": "data",
    "sklearn": "data",
    "tifffile": "data",
    "accelerate": "train",
    "e2cnn": "train",
    "faiss": "train",
    "joblib": "train",
    "scipy": "train",
    "tensorboard": "train",
    "lenstronomy": "simulate",
    "numba": "simulate",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "lightly": "all",
    "wandb": "wandb",
}

WHOLE = {  # of these commands: all that they need, reading images included
    "simulate": "simulate",
    "pretrain": "train",
    "finetune": "train",
    "evaluate": "train",
}


def what_to_install(error: ModuleNotFoundError, command: str) -> str | None:
    """One line on the extra that a command lacks; None if the missing module is in no extra."""
    library = (error.name or "").partition(".")[0]
    if library not in EXTRAS:
        return None
    extra = WHOLE.get(command, "data") if EXTRAS[library] == "data" else EXTRAS[library]
    return f"{library} is not installed; run: pip install 'ssl_lens[{extra}]'"
