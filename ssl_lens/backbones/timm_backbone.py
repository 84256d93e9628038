"""Any network of timm that gives feature maps, by timm's own name for it."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import timm
import torch
from timm.layers import Format
from torch import Tensor, nn

from ssl_lens.backbones.backbone import MapBackbone, SizeRule, taken
from ssl_lens.backbones.options import Count, Options
from ssl_lens.errors import InputError

PUBLISHER = "timm"  # its networks are called timm/NAME
SIZE_ARGUMENTS = ("dynamic_img_size", "strict_img_size")  # of timm's networks; what makes them take several sizes
NEAR = 3  # names that an error suggests


@dataclass(frozen=True)
class TimmOptions(Options):
    """Options of timm's networks.

    Attributes:
        image_size: side of the images, px, for networks that are built for one size; others ignore it.
        stages: keep the first few maps, and of the network what they need; None for all.
    """

    image_size: Count = 224
    stages: Count | None = None


class TimmBackbone(MapBackbone):
    """A network of timm, as its `features_only` gives it.

    The regions are the pixels of the last map, the view is their mean; no norm follows. Which sizes of images a network
    takes only it knows: `map_size` tries each, without computing anything.

    Source: timm's implementation of whatever network it is, with random weights unless `load_pretrained` is called.
    """

    options_type = TimmOptions
    options: TimmOptions

    def __init__(self, in_channels: int, network: str, options: TimmOptions = TimmOptions()) -> None:
        """Builds the network with random weights.

        Args:
            in_channels: channels of the images.
            network: timm's name, such as "convnext_atto" or "resnet18.a1_in1k".
            options: see `TimmOptions`.

        Raises: InputError if timm has no such network, or it gives no feature maps, fewer than are to be kept, or none
            at the size it is to be built for.
        """
        check_network(network)
        size_arguments = _size_arguments(network, in_channels, options)
        body = _create(network, in_channels, options, size_arguments)
        super().__init__(in_channels, body.feature_info.channels()[-1], body.feature_info.reduction()[-1])
        self.options = options
        self.network = network
        self.body = body
        self._size_arguments = size_arguments
        self._map_sizes: dict[tuple[int, int], tuple[int, int] | str] = {}  # or why there is none

    def config(self) -> dict[str, Any]:
        return {**super().config(), "network": self.network}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        in_channels, others = taken(config, "in_channels")
        network, options = taken(others, "network")
        return cls(in_channels, network, TimmOptions.from_config(options))

    @classmethod
    def from_published(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """From what timm saves of the network, which holds no name of `body`; a classifier is left out."""
        return {f"body.{key}": value for key, value in super().from_published(state).items()}

    def load_pretrained(self) -> None:
        """Loads timm's weights of the network, from its cache or the network.

        Raises: InputError if there are none, or they cannot be had.
        """
        try:
            with torch.random.fork_rng(devices=[]):
                theirs = _create(self.network, self.in_channels, self.options, self._size_arguments, pretrained=True)
        except Exception as error:  # timm's, the hub's, the network's: of many types
            raise InputError(
                f"timm's weights of {self.network} cannot be had ({_first_line(error)}); "
                "go online, name one of timm's pretrained networks, or give a file of weights"
            ) from None
        self.body.load_state_dict(theirs.state_dict())

    @property
    def accepted_sizes(self) -> str:
        return "found by trying"

    @property
    def size_rule(self) -> SizeRule:
        """Found by trying: any size, else multiples of the finest or the last map's, else what it was built for."""
        built = self.options.image_size
        for multiple in (1, self.body.feature_info.reduction()[0], self.reduction):
            side = (built // self.reduction + 1) * self.reduction + multiple
            with contextlib.suppress(InputError):
                self.map_size(side, side)
                return SizeRule(multiple)
        return SizeRule(largest=(built, built))

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        super().map_size(height, width)
        if (height, width) not in self._map_sizes:
            self._map_sizes[height, width] = self._try(height, width)
        found = self._map_sizes[height, width]
        if isinstance(found, str):
            raise InputError(
                f"image size {height}x{width} px is refused by {PUBLISHER}/{self.network} ({found}); "
                "use another size or another network"
            )
        return found

    def stages(self, images: Tensor) -> list[Tensor]:
        if not torch.compiler.is_compiling():  # a trial run is nothing to compile
            self.check_images(images)
        return _channels_first(self.body, self.body(images))

    def _try(self, height: int, width: int) -> tuple[int, int] | str:
        """The size of the last map, or why there is none."""
        image = torch.empty(1, self.in_channels, height, width, device="meta")
        try:
            with torch.device("meta"):
                twin = _create(self.network, self.in_channels, self.options, self._size_arguments).eval()
            last = _channels_first(twin, twin(image))[-1]
        except Exception as error:  # networks refuse in many ways
            return _first_line(error)
        if last.ndim != 4 or last.shape[1] != self.embed_dim or not last.numel():
            return f"its last output has shape {list(last.shape)}"
        return last.shape[2], last.shape[3]


def check_network(network: str) -> None:
    """Raises InputError unless timm has a network of this name; names that would be fetched from a hub are refused."""
    if ":" in network or not timm.is_model(network):
        near = difflib.get_close_matches(network, timm.list_models(), n=NEAR, cutoff=0.3)
        raise InputError(f"timm has no network {network!r}; the nearest are {', '.join(near) or 'none'}")


def _size_arguments(network: str, in_channels: int, options: TimmOptions) -> dict[str, Any]:
    """The arguments with which the network is built for an image size; none for one that takes it as it comes."""
    size = {"img_size": options.image_size}
    flexible: list[dict[str, Any]] = [{**size, name: name == "dynamic_img_size"} for name in SIZE_ARGUMENTS]
    for arguments in (*flexible, size, {}):
        try:
            with torch.device("meta"):
                body = _create(network, in_channels, TimmOptions(), arguments)
        except TypeError:  # an argument that this network does not have
            continue
        except Exception as error:  # of many types
            raise InputError(
                f"{PUBLISHER}/{network} gives no feature maps at image_size={options.image_size} "
                f"({_first_line(error)}); use another size or another network"
            ) from None
        maps = len(body.feature_info.channels())
        if options.stages is not None and options.stages > maps:
            raise InputError(
                f"stages={options.stages} is more than the {maps} maps of {PUBLISHER}/{network}; "
                f"use stages={maps} or fewer"
            )
        return arguments
    raise InputError(f"{PUBLISHER}/{network} gives no feature maps; use another network")


def _create(
    network: str, in_channels: int, options: TimmOptions, size_arguments: Mapping[str, Any], pretrained: bool = False
) -> Any:
    kept: dict[str, Any] = {} if options.stages is None else {"out_indices": tuple(range(options.stages))}
    return timm.create_model(
        network, pretrained=pretrained, features_only=True, in_chans=in_channels, **size_arguments, **kept
    )


def _channels_first(body: nn.Module, maps: list[Tensor]) -> list[Tensor]:
    """Maps as [B, C, h, w], which some of timm's networks do not give."""
    if getattr(body, "output_fmt", Format.NCHW) == Format.NHWC:
        return [stage_map.permute(0, 3, 1, 2) for stage_map in maps]
    return list(maps)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
