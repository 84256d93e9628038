"""The pictures of the README: python docs/make_images.py LENSES, such as runs/quickstart_lenses

Writes docs/images/views.png, the views of three of the lenses by the recipe `esvit_micro`, and
docs/images/embedding.png, other lenses, of any size and with lens light, laid out by what `lens_small` learned. All are
simulated.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from sklearn.manifold import TSNE
from sklearn.preprocessing import StandardScaler

import ssl_lens
from ssl_lens.cli import main as cli
from ssl_lens.pictures import drawable

IMAGES = Path(__file__).parent / "images"
SHOWN_LENSES = 3
VARIED = ["einstein_radius_arcsec=0.5,1.9", "source_offset_arcsec=-0.5,0.5", "lens_light=0,0.6"]
VARIED_PER_CLASS = 200
THUMBNAIL = 0.075  # its width, in units of the picture's
INCHES = 6.0
COLOURS = 48  # a palette keeps the files small


def main() -> None:
    """Draws both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lenses", type=Path)
    options = parser.parse_args()
    IMAGES.mkdir(exist_ok=True)
    drawn = IMAGES / "views.png"
    if cli.main(["views", "esvit_micro", f"data.path={options.lenses}", "--out", str(drawn)]):
        raise SystemExit("the views could not be drawn")
    with Image.open(drawn) as picture:  # its first rows
        width, height = picture.size
        rows = 6
        cut = picture.convert("RGB").crop((0, 0, width, round(height * (SHOWN_LENSES / rows + 0.015))))
    save(cut, drawn)
    with tempfile.TemporaryDirectory() as folder:
        varied = ssl_lens.simulate(
            folder, VARIED, count_per_class=VARIED_PER_CLASS, image_size=64, pixel_scale_arcsec=0.1, seed=2
        )
        raw = torch.from_numpy(np.asarray(ssl_lens.read_images(varied).images[:]))
    frozen = ssl_lens.load_backbone("lens_small", pooling="view").fitted(raw.numpy())
    features = torch.cat([frozen(part).features for part in raw.split(64)]).numpy()
    places = TSNE(init="pca", perplexity=30, random_state=0).fit_transform(StandardScaler().fit_transform(features))
    prepared = frozen.preprocess(raw).numpy()
    lenses = np.stack([drawable(image, picture=False)[0] for image in prepared])
    save(layout(lenses, places), IMAGES / "embedding.png")


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
        darkest, brightest = np.quantile(image, [0.6, 0.998])  # the sky is black
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
