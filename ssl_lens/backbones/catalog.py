"""All families of networks: where a name becomes a network, and a network its configuration.

A family is one file of this folder with its class, its options, the named variants of them and `FAMILY`; its line below
is all else that it needs.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping
from typing import Any

from ssl_lens.backbones.backbone import MapBackbone, taken
from ssl_lens.backbones.options import MOST, Family, Options, field_names
from ssl_lens.backbones.steerable.stem import Stem, StemmedBackbone, StemOptions
from ssl_lens.backbones.timm_backbone import PUBLISHER, TimmBackbone, TimmOptions, check_network
from ssl_lens.errors import InputError

FAMILIES = (
    "swin",
    "cvt_lens",
    "cvt",
    "cvt_windowed",
    "eqcvt",
    "eqcvt_invariant",
    "steerable_cnn",
    "harmonic_net",
    "canonical_etn",
    "resnet",
    "vit",
    "beit",
    "levit",
    "twins",
    "crossformer",
    "regionvit",
    "lens_wavelets",
    "lens_mlp",
)
NEAR = 3  # names that an error suggests


def names() -> tuple[str, ...]:
    """The names of all networks but timm's."""
    return tuple(name for family in FAMILIES for name in _family(family).variants)


def is_name(text: str) -> bool:
    """Whether a text is the name of a network, timm's included."""
    return text in names() or _timm_network(text) is not None


def options_of(name: str) -> type[Options]:
    """The class of a network's options: its fields are what can be chosen.

    Raises: InputError if no network has this name.
    """
    return type(published_options(name))


def option_names(name: str) -> tuple[str, ...]:
    """What can be chosen of a network, such as patch_size, stem_stride or stages.

    Raises: InputError if no network has this name.
    """
    return field_names(options_of(name))


def all_option_names() -> tuple[str, ...]:
    """What can be chosen of any network."""
    families = [option for name in names() for option in option_names(name)]
    return tuple(dict.fromkeys([*families, *field_names(TimmOptions)]))


def published_options(name: str) -> Options:
    """The options of a network as published.

    Raises: InputError if no network has this name.
    """
    timms = _timm_network(name)
    if timms is not None:
        check_network(timms)
        return TimmOptions()
    for family in FAMILIES:
        if name in _family(family).variants:
            return _family(family).variants[name]
    near = difflib.get_close_matches(name, names(), n=NEAR, cutoff=0.3) or names()
    raise InputError(f"name={name!r} is unknown; the nearest are {', '.join(near)}, or {PUBLISHER}/NAME for timm's")


def chosen_options(name: str, values: Mapping[str, Any], *, others: Iterable[str] = ()) -> Options:
    """The options of a network as published, but for some values.

    Args:
        values: by the name of the option.
        others: names that are not options but may have been meant by an unknown one.

    Raises: InputError, one line, for an unknown network or option, or a value that cannot be.
    """
    return published_options(name).changed(values, owner=name, others=others)


def has_pretrained_weights(name: str) -> bool:
    """Whether there are weights to be fetched by the network's name."""
    return _timm_network(name) is not None


def build_backbone(
    name: str,
    options: Mapping[str, Any],
    *,
    in_channels: int,
    image_size: int,
    stem: StemOptions | None = None,
) -> MapBackbone:
    """A network with fresh weights.

    Args:
        name: one of `names()`, or timm/NAME.
        options: what is not as published, by the name of the option.
        in_channels: channels of the images.
        image_size: side of the images in pixels, for networks that have the option `image_size` and are not given it.
        stem: put a steerable stem in front; `image_size`, here and in `options`, remains that of the images.

    Raises: InputError, one line, for an unknown network or option, or values that do not fit together.
    """
    front = None if stem is None else Stem(in_channels, stem)
    if "image_size" in option_names(name):
        size = options.get("image_size", image_size)
        options = {**options, "image_size": size if front is None else _behind(front, size)}
    chosen = chosen_options(name, options)
    inner_channels = in_channels if front is None else front.out_channels
    timms = _timm_network(name)
    if timms is None:
        backbone = _network_of(name)(inner_channels, chosen)
    else:
        assert isinstance(chosen, TimmOptions)
        backbone = TimmBackbone(inner_channels, timms, chosen)
    return backbone if front is None else StemmedBackbone(front, backbone)


def backbone_config(backbone: MapBackbone) -> dict[str, Any]:
    """What `backbone_from_config` needs to build the same architecture again, ready for JSON."""
    if isinstance(backbone, StemmedBackbone):
        return {
            "architecture": "stemmed",
            "stem": backbone.stem.config(),
            "backbone": backbone_config(backbone.backbone),
        }
    architecture = type(backbone).__module__.rpartition(".")[2]
    return {"architecture": architecture, **backbone.config()}


def backbone_from_config(config: Mapping[str, Any]) -> MapBackbone:
    """The architecture described by `backbone_config`, with fresh weights; needs torch and timm alone.

    Raises: InputError if the architecture or an option is unknown, as in an export by a newer version.
    """
    name, arguments = taken(config, "architecture")
    in_channels = config.get("in_channels", 1)
    if type(in_channels) is not int or not 1 <= in_channels <= MOST:
        raise InputError(f"in_channels={in_channels!r:.50} should be an integer, 1 or more")
    if name == "stemmed":
        return StemmedBackbone(Stem.from_config(arguments["stem"]), backbone_from_config(arguments["backbone"]))
    if name == TimmBackbone.__module__.rpartition(".")[2]:
        return TimmBackbone.from_config(arguments)
    if name not in FAMILIES:
        raise InputError(f"architecture {name!r} is unknown to this version of ssl_lens; install a newer one")
    return _family(name).network.from_config(arguments)


def unfolded(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as it was before folding, steerable filters and all."""
    return _with_folded(config, False)


def folded(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of the same network once it is folded."""
    return _with_folded(config, True)


def _with_folded(config: Mapping[str, Any], value: bool) -> dict[str, Any]:
    parts = {key: _with_folded(part, value) if isinstance(part, dict) else part for key, part in config.items()}
    return parts | ({"folded": value} if "folded" in parts else {})


def _family(name: str) -> Family:
    family: Family = importlib.import_module(f"ssl_lens.backbones.{name}").FAMILY
    return family


def _network_of(name: str) -> Any:
    return next(family.network for family in map(_family, FAMILIES) if name in family.variants)


def _timm_network(name: str) -> str | None:
    """What timm calls the network; None if it is none of timm's."""
    publisher, slash, network = name.partition("/")
    return network if slash and publisher == PUBLISHER else None


def _behind(stem: Stem, image_size: Any) -> Any:
    """An image size, or (height, width), as a network behind the stem sees it; anything else stays for the check."""
    if type(image_size) is int:
        return stem.map_size(image_size, image_size)[0]
    if isinstance(image_size, tuple | list) and len(image_size) == 2 and all(type(side) is int for side in image_size):
        return stem.map_size(*image_size)
    return image_size
