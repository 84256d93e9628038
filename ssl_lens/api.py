"""The verbs of the command line, in Python; each imports what it needs when it is called."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssl_lens.data.folders.layouts import LayoutName
    from ssl_lens.data.images import ImageSet
    from ssl_lens.representation.frozen import FrozenBackbone
    from ssl_lens.simulation.parameters import Model, Redraw


@dataclass(frozen=True)
class Run:
    """A pretraining run on disk.

    Attributes:
        folder: what was written: recipe.yaml, metrics.jsonl, checkpoints/, plots/ and more.
    """

    folder: Path

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """What was measured every few steps, oldest first: `step`, `epoch`, `loss` and more, by name."""
        lines = (self.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def load_backbone(self) -> FrozenBackbone:
        """The frozen backbone of the newest checkpoint, on the CPU."""
        from ssl_lens.representation.frozen import load_backbone

        return load_backbone(self.folder)


def pretrain(recipe: str | Path, overrides: Sequence[str] = ()) -> Run:
    """Pretrains a backbone on unlabelled images, as `ssl-lens pretrain` does.

    Args:
        recipe: name of a shipped recipe, such as "esvit_micro", or a YAML file.
        overrides: changes to it, such as ["data.path=DIR", "optim.epochs=10"].
    Raises:
        InputError: something that was given cannot be used.
        InterruptedRun: the run was asked to stop, and has saved.
    """
    from ssl_lens.recipe import compose
    from ssl_lens.recipe.recipe import load_recipe

    return Run(compose.pretrain(load_recipe(recipe, overrides)))


def read_images(
    path: str | Path | Sequence[str | Path],
    *,
    layout: LayoutName = "auto",
    table: str | Path | None = None,
    mask_value: float | None = None,
    files: str | None = None,
    planes: Sequence[str | int] = (),
    noise: Sequence[str | int] = (),
    mask: Sequence[str | int] = (),
) -> ImageSet:
    """Reads a folder of images, a table or a pack, with labels, numbers and held-out parts where they are known.

    Args:
        path: folder of images in folders of any depth, a table, what `ssl-lens data pack` made, or one
            or several image files.
        layout: what the folders mean.
        table: labels and numbers; by default targets.csv or the like in the folder.
        files: pattern of the files of a folder to take, such as "*data.fits".
        planes: names or numbers of the planes of files, or of bands, that become the channels, in this order; noise:
            those of their noise, variance or weight, where pixels that are not positive numbers are filled too;
            mask: those of masks or quality flags, whose pixels are filled.
        mask_value: pixels of this value are filled with the median of their channel, as NaN is.
    Returns: pixels [N, C, H, W] as they are on disk, names, labels, numbers; read when they are indexed.
    Raises: InputError if they cannot be used; one line says what to change.
    """
    from ssl_lens.data import reading
    from ssl_lens.data.pixels.policy import PixelPolicy

    policy = PixelPolicy(mask_value, planes=tuple(planes), noise=tuple(noise), mask=tuple(mask))
    return reading.read_images(path, policy=policy, layout=layout, table=table, files=files)


def simulate(
    out: str | Path,
    ranges: Sequence[str] = (),
    *,
    count_per_class: int,
    model: Model = "model_i",
    image_size: int | None = None,
    pixel_scale_arcsec: float | None = None,
    seed: int = 1,
    as_deeplense: bool = False,
    randomised: bool = False,
    renderings: int = 1,
    redraw: Sequence[Redraw] | None = None,
) -> Path:
    """Simulates lenses of three classes into a folder, as `ssl-lens simulate` does.

    Args:
        out: a new folder, or one to continue.
        ranges: of what is drawn, such as ["shear=0,0.1", "subhalo_slope=-0.9"].
        model: which of DeepLense's telescopes.
        image_size: side in pixels; the model's if None, as `pixel_scale_arcsec`.
        as_deeplense: as DeepLense's code makes its images where `ranges` says nothing.
        randomised: wide ranges where `ranges` says nothing, to train for images from elsewhere.
        renderings: images of each lens, of the same mass and always other noise.
        redraw: what else differs between them, of source, exposure, lens_light and psf; all if None.
    Returns: the folder, of class folders and parameters.csv.
    Raises: InputError for values that do not go together, or a folder of something else.
    """
    from ssl_lens.simulation.parameters import parse_parameters
    from ssl_lens.simulation.sets import simulate_lenses

    return simulate_lenses(
        Path(out),
        count_per_class=count_per_class,
        model=model,
        image_size=image_size,
        pixel_scale_arcsec=pixel_scale_arcsec,
        parameters=parse_parameters(ranges, as_deeplense=as_deeplense, randomised=randomised),
        seed=seed,
        renderings=renderings,
        redraw=redraw,
    )
