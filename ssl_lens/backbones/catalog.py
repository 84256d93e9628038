"""Where the name of a network becomes a network, and a network its configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ssl_lens.backbones.backbone import Backbone
from ssl_lens.backbones.beit import BEiT
from ssl_lens.backbones.canonical_etn import CanonicalETN
from ssl_lens.backbones.crossformer import CrossFormer
from ssl_lens.backbones.cvt import CvT
from ssl_lens.backbones.cvt_lens import CvTLens
from ssl_lens.backbones.cvt_windowed import CvTWindowed
from ssl_lens.backbones.eqcvt import EqCvT
from ssl_lens.backbones.eqcvt_invariant import EqCvTInvariant
from ssl_lens.backbones.harmonic_net import HarmonicNet
from ssl_lens.backbones.levit import LeViT
from ssl_lens.backbones.regionvit import RegionViT
from ssl_lens.backbones.resnet import ResNet
from ssl_lens.backbones.steerable.stem import Stem, StemmedBackbone
from ssl_lens.backbones.steerable_cnn import SteerableCNN
from ssl_lens.backbones.swin import Swin
from ssl_lens.backbones.twins import TwinsSVT
from ssl_lens.backbones.vit import ViT
from ssl_lens.errors import InputError

if TYPE_CHECKING:  # an exported backbone is rebuilt here with torch and timm alone
    from ssl_lens.backbones.section import Model
    from ssl_lens.recipe.recipe import Recipe

T = TypeVar("T")

ARCHITECTURES: dict[str, type[Backbone]] = {  # as an export names them
    "beit": BEiT,
    "canonical_etn": CanonicalETN,
    "crossformer": CrossFormer,
    "cvt": CvT,
    "cvt_lens": CvTLens,
    "cvt_windowed": CvTWindowed,
    "eqcvt": EqCvT,
    "eqcvt_invariant": EqCvTInvariant,
    "harmonic_net": HarmonicNet,
    "levit": LeViT,
    "regionvit": RegionViT,
    "resnet": ResNet,
    "steerable_cnn": SteerableCNN,
    "swin": Swin,
    "twins": TwinsSVT,
    "vit": ViT,
}


def backbone(recipe: Recipe, in_channels: int) -> Backbone:
    """The recipe's network with fresh weights, its stem included.

    Raises: InputError if the recipe's model values do not fit together.
    """
    model, image_size = recipe.model, recipe.model.image_size
    image_size = recipe.views.global_size if image_size == "auto" else image_size
    if model.stem is None:
        return _plain_backbone(model, in_channels, image_size)
    stem = Stem(
        in_channels,
        group=model.stem.group,
        fields=model.stem.fields,
        depth=model.stem.depth,
        kernel_size=model.stem.kernel_size,
        downsample=model.stem.downsample,
        pooling=model.stem.pooling,
    )
    return StemmedBackbone(stem, _plain_backbone(model, stem.out_channels, stem.map_size(image_size, image_size)[0]))


def _plain_backbone(model: Model, in_channels: int, image_size: int) -> Backbone:
    """The network that `model.name` means; `image_size` in pixels of what it sees, behind the stem."""
    match model.name:
        case "swin_tiny":
            return _swin(model, in_channels, 96, (2, 2, 6, 2), (3, 6, 12, 24))
        case "swin_small":
            return _swin(model, in_channels, 96, (2, 2, 18, 2), (3, 6, 12, 24))
        case "swin_base":
            return _swin(model, in_channels, 128, (2, 2, 18, 2), (4, 8, 16, 32))
        case "swin_micro":
            return _swin(model, in_channels, 48, (2, 2, 2), (2, 4, 8))
        case "cvt_small_lens":
            return CvTLens(in_channels)
        case "cvt_13":
            return CvT(in_channels, depths=(1, 2, 10), drop_path=_given(model.drop_path, 0.1))
        case "cvt_21":
            return CvT(in_channels, depths=(1, 4, 16), drop_path=_given(model.drop_path, 0.1))
        case "cvt_windowed":
            window_size, padding = _given(model.window_size, 7), _given(model.padding, "clamp")
            drop_path = _given(model.drop_path, 0.1)
            return CvTWindowed(in_channels, window_size=window_size, drop_path=drop_path, padding=padding)
        case "eqcvt":
            return EqCvT(in_channels, group=_given(model.group, "C8"))
        case "eqcvt_invariant":
            return EqCvTInvariant(in_channels, group=_given(model.group, "C8"))
        case "steerable_cnn_c4":
            return SteerableCNN(in_channels, group="C4")
        case "steerable_cnn_c8":
            return SteerableCNN(in_channels, group="C8")
        case "steerable_cnn_d4":
            return SteerableCNN(in_channels, group="D4")
        case "steerable_cnn_d8":
            return SteerableCNN(in_channels, group="D8")
        case "harmonic_net":
            return HarmonicNet(in_channels)
        case "canonical_etn":
            return CanonicalETN(in_channels)
        case "resnet18":
            return _resnet(model, in_channels, 64, (2, 2, 2, 2), "basic")
        case "resnet34":
            return _resnet(model, in_channels, 64, (3, 4, 6, 3), "basic")
        case "resnet50":
            return _resnet(model, in_channels, 64, (3, 4, 6, 3), "bottleneck")
        case "resnet_micro":
            depths, strides = (1, 1, 1)[: model.stages], (1, 2, 1)[: model.stages]  # the last stage keeps the map
            return ResNet(in_channels, 32, depths, strides, _given(model.stem_stride, 2))
        case "vit_small":
            patch_size, drop_path = _given(model.patch_size, 16), _given(model.drop_path, 0.1)
            return ViT(in_channels, patch_size=patch_size, image_size=image_size, drop_path=drop_path)
        case "beit_base":
            patch_size, drop_path = _given(model.patch_size, 16), _given(model.drop_path, 0.1)
            return BEiT(in_channels, patch_size=patch_size, image_size=image_size, drop_path=drop_path)
        case "levit":
            return LeViT(in_channels, image_size=image_size)
        case "twins_svt":
            patch_size, drop_path = _given(model.patch_size, 4), _given(model.drop_path, 0.2)
            return TwinsSVT(in_channels, patch_size=patch_size, drop_path=drop_path)
        case "crossformer_tiny":
            return CrossFormer(in_channels, drop_path=_given(model.drop_path, 0.1))
        case "crossformer_small":
            depths, num_heads, drop_path = (2, 2, 6, 2), (3, 6, 12, 24), _given(model.drop_path, 0.2)
            return CrossFormer(in_channels, embed_dim=96, depths=depths, num_heads=num_heads, drop_path=drop_path)
        case "regionvit_tiny":
            return RegionViT(in_channels, drop_path=_given(model.drop_path, 0.1))
        case name:
            raise AssertionError(f"the recipe let {name} through")


def _resnet(
    model: Model, in_channels: int, width: int, depths: tuple[int, ...], block: Literal["basic", "bottleneck"]
) -> ResNet:
    return ResNet(in_channels, width, depths[: model.stages], stem_stride=_given(model.stem_stride, 4), block=block)


def _swin(model: Model, in_channels: int, embed_dim: int, depths: tuple[int, ...], num_heads: tuple[int, ...]) -> Swin:
    return Swin(
        in_channels,
        embed_dim=embed_dim,
        depths=depths[: model.stages],
        num_heads=num_heads[: model.stages],
        patch_size=_given(model.patch_size, 4),
        window_size=_given(model.window_size, 7),
        drop_path=_given(model.drop_path, 0.1),
        padding=_given(model.padding, "clamp"),
    )


def _given(value: T | None, published: T) -> T:
    return published if value is None else value


def backbone_config(backbone: Backbone) -> dict[str, Any]:
    """What `backbone_from_config` needs to build the same architecture again, ready for JSON."""
    if isinstance(backbone, StemmedBackbone):
        return {
            "architecture": "stemmed",
            "stem": backbone.stem.config(),
            "backbone": backbone_config(backbone.backbone),
        }
    (name,) = (name for name, architecture in ARCHITECTURES.items() if type(backbone) is architecture)
    return {"architecture": name, **backbone.config()}


def backbone_from_config(config: dict[str, Any]) -> Backbone:
    """The architecture described by `backbone_config`, with fresh weights; needs torch and timm alone.

    Raises: InputError if the architecture is unknown, as in an export by a newer version.
    """
    name = config["architecture"]
    arguments = {key: value for key, value in config.items() if key != "architecture"}
    if name == "stemmed":
        return StemmedBackbone(Stem(**arguments["stem"]), backbone_from_config(arguments["backbone"]))
    if name not in ARCHITECTURES:
        raise InputError(f"architecture {name!r} is unknown to this version of ssl_lens; install a newer one")
    return ARCHITECTURES[name](**arguments)


def unfolded(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration as it was before folding, steerable filters and all."""
    config = {key: unfolded(value) if isinstance(value, dict) else value for key, value in config.items()}
    return config | ({"folded": False} if "folded" in config else {})
