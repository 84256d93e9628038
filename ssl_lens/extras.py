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


def what_to_install(error: ModuleNotFoundError) -> str | None:
    """One line on the extra that holds the missing library; None if no extra does."""
    library = (error.name or "").partition(".")[0]
    if library not in EXTRAS:
        return None
    return f"{library} is not installed; run: pip install 'ssl_lens[{EXTRAS[library]}]'"
