"""The pictures of the README: python docs/make_images.py RUN LENSES, such as runs/quickstart runs/quickstart_lenses

Writes docs/images/views.png, the views of three lenses by the run's recipe, and docs/images/embedding.png, thumbnails of
the lenses laid out by the run's features. Both show simulated lenses alone.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from sklearn.manifold import TSNE
from sklearn.preprocessing import StandardScaler

import ssl_lens
from ssl_lens.cli import main as cli

IMAGES = Path(__file__).parent / "images"
SHOWN_LENSES = 3
THUMBNAIL = 0.055  # side, in units of the picture's
INCHES = 6.0
COLOURS = 64  # a palette keeps the files small


def main() -> None:
    """Draws both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("lenses", type=Path)
    options = parser.parse_args()
    IMAGES.mkdir(exist_ok=True)
    drawn = IMAGES / "views.png"
    if cli.main(["views", str(options.run / "recipe.yaml"), f"data.path={options.lenses}", "--out", str(drawn)]):
        raise SystemExit("the views could not be drawn")
    with Image.open(drawn) as picture:  # its first rows
        width, height = picture.size
        rows = 6
        cut = picture.convert("RGB").crop((0, 0, width, round(height * (SHOWN_LENSES / rows + 0.01))))
    save(cut, drawn)
    images = ssl_lens.read_images(options.lenses)
    frozen = ssl_lens.load_backbone(options.run)
    raw = torch.from_numpy(np.asarray(images.images[:]))
    features = torch.cat([frozen(part).view for part in raw.split(64)]).numpy()
    places = TSNE(init="pca", perplexity=30, random_state=0).fit_transform(StandardScaler().fit_transform(features))
    save(layout(frozen.preprocess(raw)[:, 0].numpy(), places), IMAGES / "embedding.png")


def layout(images: np.ndarray, places: np.ndarray) -> Image.Image:
    """Thumbnails [N, H, W] at their places [N, 2]; of those that would overlap, the first alone."""
    low, high = places.min(axis=0), places.max(axis=0)
    places = (places - low) / (high - low)
    figure = Figure(figsize=(INCHES, INCHES / 2), facecolor="black")
    axis = figure.add_axes((0.01, 0.02, 0.98, 0.96))
    shown: list[np.ndarray] = []
    reach = np.array([THUMBNAIL / 2, THUMBNAIL])  # the picture is twice as wide as high
    for image, place in zip(images, places, strict=True):
        if any((np.abs(place - other) < reach).all() for other in shown):
            continue
        shown.append(place)
        (left, bottom), (right, top) = place - reach / 2, place + reach / 2
        darkest, brightest = np.quantile(image, [0.05, 0.998])
        axis.imshow(image, cmap="inferno", vmin=darkest, vmax=brightest, extent=(left, right, bottom, top))
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.04, 1.04), aspect="auto")
    axis.set_axis_off()
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=160, facecolor="black")
    return Image.open(drawn).convert("RGB")


def save(picture: Image.Image, path: Path) -> None:
    """Writes a PNG with a palette."""
    picture.quantize(COLOURS).save(path, optimize=True)
    print(path, f"{path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
