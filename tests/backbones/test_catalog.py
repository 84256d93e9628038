"""What every network of the catalogue promises, each one as published, by its name."""

import copy
import io
import sys
import types
from functools import lru_cache
from pathlib import Path
from typing import Any

import onnxruntime  # noqa: F401  `onnx_difference` measures nothing without it
import pytest
import torch
from costs import cost

from ssl_lens.backbones import catalog
from ssl_lens.backbones.backbone import MapBackbone
from ssl_lens.backbones.section import Model
from ssl_lens.backbones.steerable.stem import StemOptions
from ssl_lens.data.pixels.preprocess import Preprocess
from ssl_lens.errors import InputError
from ssl_lens.methods.dino import DINO, DINOOptions
from ssl_lens.optim import adamw, set_hyperparameters
from ssl_lens.representation.export import onnx_difference, write_onnx
from ssl_lens.representation.frozen import FrozenBackbone
from ssl_lens.representation.network_table import option_lines
from ssl_lens.views.multicrop import Views

NAMES = catalog.names()
SLOW_UNLESS_SMALL = [pytest.param(name, marks=() if cost(name).small else pytest.mark.slow) for name in NAMES]
SLOW_IF_LARGE = [pytest.param(name, marks=pytest.mark.slow if cost(name).large else ()) for name in NAMES]
SIZE, LOCAL_SIZE = 64, 32  # px


def build(name: str, in_channels: int = 1, image_size: int = SIZE, **options: Any) -> MapBackbone:
    torch.manual_seed(0)
    return catalog.build_backbone(name, options, in_channels=in_channels, image_size=image_size)


def takes(backbone: MapBackbone, size: int) -> bool:
    try:
        backbone.map_size(size, size)
    except InputError:
        return False
    return True


@lru_cache(maxsize=1)  # tests of one network follow one another
def settled(name: str) -> MapBackbone:
    """In evaluation mode, with batch-norm statistics that are not the initial ones."""
    backbone = build(name, image_size=SIZE)
    with torch.no_grad():
        for _ in range(3):
            backbone.train()(images(8) * 1.5 + 0.2)
    return backbone.eval()


def images(batch: int, size: int = SIZE) -> torch.Tensor:
    return torch.randn(batch, 1, size, size, generator=torch.Generator().manual_seed(batch))


PUBLISHED = {  # with the classifier: channels, outputs, parameters
    "swin_tiny": (3, 1000, 28_288_354),
    "cvt_small_lens": (1, 2, 463_106),
    "cvt_13": (3, 1000, 19_997_480),
    "cvt_21": (3, 1000, 31_622_696),
    "eqcvt": (1, 2, 64_810),
    "eqcvt_invariant": (1, 2, 63_898),
    "harmonic_net": (1, 2, 31_854),
    "resnet18": (3, 1000, 11_689_512),
    "resnet34": (3, 1000, 21_797_672),
    "resnet50": (3, 1000, 25_557_032),
    "vit_small": (3, 1000, 22_050_664),
    "beit_base": (3, 1000, 86_530_984),
    "levit": (3, 1000, 18_379_852),  # without timm's second head, for distillation
    "twins_svt": (3, 1000, 24_060_776),
    "crossformer_tiny": (3, 1000, 27_776_794),
    "crossformer_small": (3, 1000, 30_657_394),
    "regionvit_tiny": (3, 1000, 13_842_676),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_number_of_parameters(name: str) -> None:
    in_channels, outputs, parameters = PUBLISHED[name]
    backbone = build(name, in_channels, image_size=224)
    modules = torch.nn.ModuleList([backbone, backbone.head(outputs)])
    assert sum(parameter.numel() for parameter in modules.parameters()) == parameters


@pytest.mark.parametrize(
    ("name", "values", "config"),
    [
        ("swin_micro", {"patch_size": 2, "window_size": 5, "stages": 2}, {"patch_size": 2, "window_size": 5}),
        ("swin_tiny", {"padding": "reference", "drop_path": 0.3}, {"padding": "reference", "drop_path": 0.3}),
        ("resnet_micro", {"stages": 2, "stem_stride": 1}, {"stages": 2, "stem_stride": 1}),
        ("cvt_windowed", {"window_size": 4}, {"window_size": 4, "padding": "clamp"}),
        ("eqcvt", {"group": "D4"}, {"group": "D4"}),
        ("eqcvt_invariant", {"group": "D4"}, {"group": "D4"}),
        ("vit_small", {"patch_size": 8, "image_size": 72}, {"patch_size": 8, "image_size": 72}),
        ("twins_svt", {"patch_size": 2}, {"patch_size": 2, "drop_path": 0.2}),
    ],
)
def test_options_reach_the_network(name: str, values: dict[str, Any], config: dict[str, Any]) -> None:
    built = build(name, **values).config()
    assert {key: built[key] for key in config} == config


def test_a_stemmed_backbone_is_rebuilt_folded_and_begun_afresh_unfolded() -> None:
    stem = StemOptions("D4", fields=3, downsample=2, pooling="mean")
    unfolded = catalog.build_backbone("swin_micro", {"patch_size": 2}, in_channels=1, image_size=SIZE, stem=stem)
    backbone = unfolded.fold().eval()
    config = catalog.backbone_config(backbone)
    again = catalog.backbone_from_config(config).eval()
    again.load_state_dict(backbone.state_dict())
    assert torch.equal(backbone(images(2)).view, again(images(2)).view)
    fresh = catalog.backbone_from_config(catalog.unfolded(config))
    assert fresh.config()["stem"] == {**backbone.config()["stem"], "folded": False}
    assert catalog.backbone_config(fresh) == catalog.backbone_config(unfolded)


@torch.no_grad()
@pytest.mark.parametrize("name", SLOW_IF_LARGE)
def test_features_and_stages_agree(name: str) -> None:
    backbone = settled(name)
    for size in (size for size in (SIZE, LOCAL_SIZE) if takes(backbone, size)):
        view, regions, _ = backbone(images(3, size))
        maps = backbone.stages(images(3, size))
        height, width = backbone.map_size(size, size)
        assert view.shape == (3, backbone.embed_dim)
        assert maps[-1].shape == (3, backbone.embed_dim, height, width)
        torch.testing.assert_close(regions, maps[-1].flatten(2).mT)
        assert all(a.shape[2] >= b.shape[2] for a, b in zip(maps, maps[1:], strict=False))
        scale = view.abs().max()
        assert view.isfinite().all()
        assert (view[0] - view[1]).abs().max() > 1e-4 * scale  # different images, different features
        alone = backbone(images(3, size)[1:2])
        assert (alone.view - view[1]).abs().max() <= 1e-5 * scale  # alone as in a batch


@torch.no_grad()
@pytest.mark.parametrize("name", SLOW_UNLESS_SMALL)
def test_copies_state_dicts_and_configurations_reproduce_the_features(name: str) -> None:
    backbone = settled(name)
    expected = backbone(images(2)).view
    clone = copy.deepcopy(backbone)
    assert torch.equal(clone(images(2)).view, expected)
    for saved_in_training, loaded_in_training in ((True, False), (False, True)):
        buffer = io.BytesIO()
        torch.save(clone.train(saved_in_training).state_dict(), buffer)
        buffer.seek(0)
        other = build(name, image_size=SIZE).train(loaded_in_training)
        other.load_state_dict(torch.load(buffer, weights_only=True), strict=True)
        assert torch.equal(other.eval()(images(2)).view, expected)

    folded = backbone.fold().eval()
    again = catalog.backbone_from_config(catalog.backbone_config(folded)).eval()
    again.load_state_dict(folded.state_dict(), strict=True)
    assert (again(images(2)).view - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("name", SLOW_UNLESS_SMALL)
def test_a_step_of_dino_and_esvit_trains_student_and_teacher(name: str) -> None:
    """View and region loss on global and local crops; every parameter moves, the teacher follows by its momentum."""
    options = DINOOptions(out_dim=16, head_hidden_dim=8, head_bottleneck_dim=4, ema_momentum=0.9)
    method = DINO(build(name, image_size=SIZE), options).train()
    local_crops = (images(4, LOCAL_SIZE).view(1, 4, 1, LOCAL_SIZE, LOCAL_SIZE),)
    views = Views(images(8).view(2, 4, 1, SIZE, SIZE), local_crops if takes(method.backbone, LOCAL_SIZE) else ())
    before = {key: value.clone() for key, value in method.student.named_parameters()}
    now = method.schedule(epochs=100, steps_per_epoch=100).at(0)
    method.start_step()
    method.losses(views, now)["total"].backward()
    unused = [key for key, value in method.student.named_parameters() if value.requires_grad and value.grad is None]
    assert unused == []
    optimizer = adamw(method.trained)
    set_hyperparameters(optimizer, lr=1e-3, weight_decay=0.0)
    optimizer.step()
    method.after_step(now)
    moved = 0
    for (key, value), follower in zip(method.student.named_parameters(), method.teacher.parameters(), strict=True):
        assert value.isfinite().all()
        torch.testing.assert_close(follower, 0.9 * before[key] + 0.1 * value.detach())
        moved += not torch.equal(value, before[key])
    assert moved > 0.9 * len(before)


@torch.no_grad()
@pytest.mark.parametrize("name", SLOW_UNLESS_SMALL)
def test_bfloat16_autocast_stays_close_to_float32(name: str) -> None:
    backbone = settled(name)
    expected = backbone(images(2)).view
    with torch.autocast("cpu", torch.bfloat16):
        view = backbone(images(2)).view
    assert (view.float() - expected).norm() / expected.norm() < 0.05


@pytest.mark.parametrize("name", ["cvt_13", "vit_small", "swin_tiny"])
def test_a_steerable_stem_fits_in_front(name: str) -> None:
    stem = StemOptions("D4", fields=3, depth=1, downsample=2)
    backbone = catalog.build_backbone(name, {}, in_channels=1, image_size=SIZE, stem=stem)
    view, regions, _ = backbone.eval()(images(1))
    assert view.shape == (1, backbone.embed_dim)
    assert regions.shape[1] == torch.Size(backbone.map_size(SIZE, SIZE)).numel()


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_onnx_gives_the_features(name: str, tmp_path: Any) -> None:
    frozen = FrozenBackbone(Preprocess.plain(1), settled(name).fold())
    write_onnx(frozen, images(4), tmp_path / "backbone.onnx")
    assert onnx_difference(tmp_path / "backbone.onnx", images(4), frozen(images(4))) <= 1e-5


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.filterwarnings("ignore")  # of the compiler about itself
@pytest.mark.parametrize("name", NAMES)
def test_compiled_as_is(name: str) -> None:
    backbone = settled(name)
    expected = backbone(images(2))
    torch._dynamo.reset()
    features = torch.compile(backbone, backend="inductor")(images(2))
    for compiled, plain in zip(features[:2], expected[:2], strict=True):
        assert (compiled - plain).abs().max() <= 1e-4 * plain.abs().max()


def test_every_family_has_its_line_and_every_name_one_meaning() -> None:
    folder = Path(catalog.__file__).parent
    families = [path.stem for path in folder.glob("*.py") if "\nFAMILY = " in path.read_text(encoding="utf-8")]
    assert sorted(families) == sorted(catalog.FAMILIES)
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_documented(name: str) -> None:
    documented = "\n".join(option_lines([name]))
    assert all(f"- `{option}` (" in documented for option in catalog.option_names(name))


def test_a_family_is_one_file_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Named in the catalogue, it can be built, described, chosen in a recipe and documented."""
    source = """
from dataclasses import dataclass
from torch import nn
from ssl_lens.backbones.backbone import MapBackbone
from ssl_lens.backbones.options import Count, Family, Options

@dataclass(frozen=True)
class PatchesOptions(Options):
    \"\"\"Options of patches.

    Attributes:
        embed_dim: width of a patch.
    \"\"\"

    embed_dim: Count = 4

class Patches(MapBackbone):
    options_type = PatchesOptions

    def __init__(self, in_channels, options=PatchesOptions()):
        super().__init__(in_channels, options.embed_dim, 8)
        self.options = options
        self.project = nn.Conv2d(in_channels, options.embed_dim, 8, 8)

    def stages(self, images):
        return [self.project(images)]

FAMILY = Family(Patches, {"patches_tiny": PatchesOptions(), "patches_wide": PatchesOptions(64)})
"""
    module = types.ModuleType("ssl_lens.backbones.patches")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(source, module.__dict__)
    monkeypatch.setattr(catalog, "FAMILIES", (*catalog.FAMILIES, "patches"))
    assert catalog.names()[-2:] == ("patches_tiny", "patches_wide")
    model = Model.model_validate({"name": "patches_wide", "embed_dim": 16})
    backbone = catalog.build_backbone(model.name, model.options, in_channels=1, image_size=SIZE)
    assert backbone(images(2)).regions.shape == (2, 64, 16)
    config = catalog.backbone_config(backbone)
    assert config == {"architecture": "patches", "in_channels": 1, "embed_dim": 16}
    assert catalog.backbone_from_config(config).embed_dim == 16
    assert list(option_lines(["patches_wide"]))[-1] == "- `embed_dim` (64): width of a patch."


@pytest.mark.parametrize("name", ["cvt_windowed", "cvt_13", "cvt_small_lens"])
@torch.no_grad()
def test_a_cvt_keeps_enough_regions_of_small_images(name: str) -> None:
    """8x8 of a global crop of 64 px, 4x4 of a local one of 32 px, as a region loss wants them."""
    whole = catalog.published_options(name).config()
    stages = min(3, len(whole["strides"]))
    backbone = build(name, stages=stages, strides=[2] * len(whole["strides"])).eval()
    assert min(backbone.map_size(SIZE, SIZE)) >= 8
    assert min(backbone.map_size(LOCAL_SIZE, LOCAL_SIZE)) >= 4
    for size in (SIZE, LOCAL_SIZE):
        assert backbone.stages(images(1, size))[-1].shape[2:] == backbone.map_size(size, size)


def test_an_image_size_is_the_images_even_behind_a_stem() -> None:
    stem = StemOptions("C4", fields=2, depth=1, downsample=2)
    for options in ({}, {"image_size": SIZE}):
        built = catalog.build_backbone("beit_base", {**options, "depth": 1}, in_channels=1, image_size=SIZE, stem=stem)
        assert built.map_size(SIZE, SIZE) == (2, 2)


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(InputError, match="architecture 'perceiver' is unknown"):
        catalog.backbone_from_config({"architecture": "perceiver"})
