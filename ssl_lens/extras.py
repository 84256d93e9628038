"""Which extra of the package installs a library that is missing."""

from __future__ import annotations

# Name of an imported library: the extra to install. `tests/test_packaging.py` holds it to pyproject.toml.
EXTRAS = {
    "accelerate": "train",
    "e2cnn": "train",
    "faiss": "train",
    "joblib": "train",
    "lightly": "train",
    "matplotlib": "train",
    "scipy": "train",
    "sklearn": "train",
    "tensorboard": "train",
    "astropy": "data",
    "braceexpand": "data",
    "fsspec": "data",
    "aiohttp": "data",
    "h5py": "data",
    "PIL": "data",
    "pyarrow": "data",
    "tifffile": "data",
    "lenstronomy": "simulate",
    "numba": "simulate",
    "onnx": "onnx",
    "onnxscript": "onnx",
    "onnxruntime": "onnx",
    "wandb": "wandb",
}


def what_to_install(error: ModuleNotFoundError) -> str | None:
    """One line on the extra that holds the missing library; None if no extra does."""
    library = (error.name or "").partition(".")[0]
    if library not in EXTRAS:
        return None
    return f"{library} is not installed; run: pip install 'ssl_lens[{EXTRAS[library]}]'"
