"""What a recipe becomes with the images that it is given; what cannot work is refused before the first step."""

from pathlib import Path

import numpy as np
import pytest

from ssl_lens.data.images import ImageSet
from ssl_lens.data.renderings import Renderings
from ssl_lens.errors import InputError
from ssl_lens.recipe.recipe import load_recipe, recipe_of_network, replace
from ssl_lens.recipe.start import Opened, Start, crops_that_fit, start

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
SIDES = (101, 150, 198, 334)  # of cutouts of many surveys
SMALL = ["method.out_dim=8", "method.head_hidden_dim=8", "method.head_bottleneck_dim=4"]


def opened(side: int, *, probe: int | None = None, count: int = 4, renderings: int = 1) -> Opened:
    def images(side: int) -> ImageSet:
        pixels = np.random.default_rng(0).normal(size=(count, 1, side, side)).astype(np.float32)
        names = tuple(f"{i}.npy" for i in range(count))
        return ImageSet(pixels, names, np.arange(count) % 2, ("lens", "nolens"))

    found = images(side)
    source = Renderings(found, renderings) if renderings > 1 else found
    return Opened(source, None if probe is None else images(probe), found.images)


def started(name: str, side: int, *overrides: str, probe: int | None = None, count: int = 4) -> Start:
    recipe = recipe_of_network(name, [*SMALL, *overrides])
    return start(recipe, opened(side, probe=probe, count=count))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_takes_images_of_common_sizes(path: Path) -> None:
    """Crops fit into them, and the frozen backbone sees at least all but a border less wide than a patch."""
    renderings = 1 if load_recipe(path).views.chosen.changes_pixels else 2
    ready = start(load_recipe(path, SMALL), opened(SIDES[0], renderings=renderings))
    for side in SIDES:
        recipe, _ = crops_that_fit(load_recipe(path, SMALL), 1, side, side)
        prepared = (min(recipe.data.center_crop or side, side)) // recipe.data.bin
        assert max(recipe.views.global_size, *recipe.views.local_sizes, 0) <= prepared
        seen = ready.frozen.output_size(side, side)
        ready.trunk.map_size(*seen)
        assert prepared - 4 < seen[0] <= prepared or side > SIDES[0]


def test_crops_become_as_large_as_the_images_and_say_so() -> None:
    recipe = load_recipe("lenses_cpu")
    assert crops_that_fit(recipe, 1, 150, 150) == (recipe, [])
    smaller, lines = crops_that_fit(recipe, 1, 110, 101)
    assert (smaller.data.center_crop, smaller.views.global_size, smaller.views.local_sizes) == (101, 50, (28,))
    assert lines == [
        "data.center_crop: 104 -> 101, as the images are 110x101 px",
        "views.global_size: 52 -> 50, as the images are 110x101 px",
    ]
    smaller, lines = crops_that_fit(load_recipe("esvit_micro"), 1, 30, 30)  # patches of 4 px
    assert (smaller.views.global_size, smaller.views.local_sizes) == (28, (28,))
    assert lines[1] == "views.local_sizes: [32] -> [28], as the images are 30x30 px"


@pytest.mark.parametrize(
    ("network", "side", "seen", "line"),
    [
        ("swin_micro", 101, (100, 100), "100x100 of 101x101 px, as the network takes multiples of 4 px"),
        ("vit_small", 101, (96, 96), "96x96 of 101x101 px, as the network takes multiples of 16 px"),
        ("levit", 101, (64, 64), "64x64 of 101x101 px, as the network takes up to 64 px, as built"),
        ("beit_base", 101, (64, 64), "64x64 of 101x101 px, as the network takes 64x64 px, as built"),
        ("resnet_micro", 101, (101, 101), None),
        ("swin_micro", 100, (100, 100), None),
    ],
)
def test_what_the_frozen_backbone_sees_is_said(
    network: str, side: int, seen: tuple[int, int], line: str | None
) -> None:
    small = {
        "beit_base": ["model.depth=1", "views.local_sizes=[]", "views.local_counts=[]"],
        "vit_small": ["model.depth=1"],
    }.get(network, [])
    ready = started(network, side, "method.region_weight=0", *small)
    assert ready.frozen.output_size(side, side) == seen
    ready.trunk.map_size(*seen)
    assert ready.preprocess.output_size(side, side) == (side, side)  # views are made of the whole image
    said = [choice for choice in ready.choices if choice.startswith("the frozen backbone sees the central ")]
    assert said == ([] if line is None else [f"the frozen backbone sees the central {line}"])


@pytest.mark.parametrize(
    ("side", "overrides", "keywords", "message"),
    [
        (3, ["model.patch_size=4", "method.region_weight=0"], {}, "views.global_size=4 exceeds the image, 3x3 px"),
        (3, ["data.bin=4"], {}, "data.bin=4 leaves no pixel of 3x3 px; set data.bin=3 or less"),
        (64, ["data.center_crop=40"], {"probe": 36, "count": 20}, "data.probe: data.center_crop=40 exceeds the images"),
        (64, [], {"probe": 3, "count": 20}, "data.probe: images of 3x3 px become 3x3 px, but the network takes multip"),
        (64, [], {"probe": 64, "count": 3}, "3 images cannot be split with a test fraction of 0.2"),
        (64, ["optim.accumulate=8", "optim.batch_size=8"], {}, "4 images are fewer than the 8 parts"),
    ],
)
def test_what_cannot_work_is_refused(side: int, overrides: list[str], keywords: dict[str, int], message: str) -> None:
    local = ["views.local_sizes=[]", "views.local_counts=[]", "views.global_size=40", "model.stages=2"]
    with pytest.raises(InputError) as refused:
        started("swin_micro", side, *local, *overrides, **keywords)
    assert message in str(refused.value)


def test_views_see_the_sky_around_a_central_crop() -> None:
    """Of 150 px, 104 are cropped and binned by 2; corners of turned views reach 12 px further, the file 11."""
    ready = start(load_recipe("lenses_cpu", SMALL), opened(150))
    assert ready.multicrop.margin == 11
    assert ready.preprocess.output_size(150, 150) == (74, 74)
    assert ready.frozen.output_size(150, 150) == (52, 52)
    imagenet = replace(load_recipe("lenses_cpu", SMALL), {"views.policy": "imagenet"})
    assert start(imagenet, opened(150)).multicrop.margin == 0  # whose views are never turned


def test_the_probe_of_a_run_on_simulated_images_has_levels_of_its_own() -> None:
    """Labelled images ten times as bright as those of the run; where that is on files, they are taken as they are."""
    bright = opened(40, probe=40, count=10)
    bright.labelled.images[:] *= 10
    views = ("views.global_size=32", "views.local_sizes=[16]")
    simulated, of_files = (
        start(recipe_of_network("resnet_micro", [*SMALL, *views, *path]), bright)
        for path in ((), ("data.path=images",))
    )
    assert simulated.probe.preprocess.std.item() == pytest.approx(10 * simulated.frozen.std.item())
    assert of_files.probe.preprocess.std.item() == of_files.frozen.std.item() == simulated.frozen.std.item()
