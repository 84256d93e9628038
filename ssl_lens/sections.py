"""The sections of a recipe and what their values may be."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from ssl_lens.data.layouts import LayoutName
from ssl_lens.data.simulation.parameters import Model as Telescope
from ssl_lens.data.simulation.parameters import Parameters
from ssl_lens.models.groups import Group

Auto: TypeAlias = Literal["auto"]
Count: TypeAlias = Annotated[int, Field(ge=1)]
Probability: TypeAlias = Annotated[float, Field(ge=0, le=1)]
NonNegative: TypeAlias = Annotated[float, Field(ge=0)]
Positive: TypeAlias = Annotated[float, Field(gt=0)]


def _low_end_first(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError(f"{list(ends)} is no range; write its low end first")
    return ends


Range: TypeAlias = Annotated[tuple[NonNegative, NonNegative], AfterValidator(_low_end_first)]
SignedRange: TypeAlias = Annotated[tuple[float, float], AfterValidator(_low_end_first)]


NetworkName: TypeAlias = Literal[
    "swin_tiny",
    "swin_small",
    "swin_base",
    "swin_micro",
    "cvt_small_lens",
    "cvt_13",
    "cvt_21",
    "cvt_windowed",
    "eqcvt",
    "eqcvt_invariant",
    "steerable_cnn_c4",
    "steerable_cnn_c8",
    "steerable_cnn_d4",
    "steerable_cnn_d8",
    "harmonic_net",
    "canonical_etn",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet_micro",
    "vit_small",
    "beit_base",
    "levit",
    "twins_svt",
    "crossformer_tiny",
    "crossformer_small",
    "regionvit_tiny",
]
NETWORKS_WITH = {  # beginnings of the names of the networks that have an option
    "group": ("eqcvt",),
    "patch_size": ("swin", "vit", "beit", "twins"),
    "window_size": ("swin", "cvt_windowed"),
    "stem_stride": ("resnet",),
    "stages": ("swin", "resnet"),
    "padding": ("swin", "cvt_windowed"),
    "drop_path": ("swin", "cvt_13", "cvt_21", "cvt_windowed", "vit", "beit", "twins", "crossformer", "regionvit"),
}


class Section(BaseModel):
    """Frozen, strict in types, closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Simulate(Section):
    """The simulated set that stands in where `data.path` is not set.

    image_size, pixel_scale_arcsec: null for the model's own. set: ranges of what is drawn, such as {shear: [0, 0.1]}.
    """

    count_per_class: Count = 1000
    model: Telescope = "model_i"
    image_size: Annotated[int, Field(ge=16)] | None = 64
    pixel_scale_arcsec: Positive | None = 0.1
    set: Parameters = Parameters()
    seed: Annotated[int, Field(ge=0)] = 1


class Data(Section):
    """Which images, and how raw pixels become the network's input.

    mask_value: flagged pixels, filled like NaN by the median of their channel; an image with more than max_masked of a
    channel flagged is left out. sizes: what becomes of images of unequal size, cropped or padded to `size`, a side, or
    else to the smallest or largest height and width. stretch: how bright pixels are compressed, by numbers fitted to
    the whole set: of each band, or joint ones, which keep the ratios of bands. A `path` that is a pattern, a URL or a
    .tar is streamed, by `workers` processes beside each (0: by itself), which draw every image from the next
    `shuffle_buffer` ones. layout: what the folders mean.
    """

    path: Annotated[str, Field(min_length=1)] | None = None
    layout: LayoutName = "auto"
    exclude: str | None = None
    probe: str | None = None
    in_channels: Auto | Count = "auto"
    mask_value: float | None = None
    max_masked: Annotated[float, Field(ge=0, lt=1)] = 0.1
    sizes: Literal["refuse", "crop", "pad"] = "refuse"
    size: Count | None = None
    center_crop: Count | None = None
    bin: Count = 1
    stretch: Literal["none", "asinh", "log", "percentile", "zscale"] = "none"
    bands: Literal["per_band", "joint"] = "per_band"
    workers: Annotated[int, Field(ge=0)] = 2
    shuffle_buffer: Count = 1000
    simulate: Simulate = Simulate()


class LensSafe(Section):
    """Views that keep the pixel scale: rotation, mirror, shift, then what an instrument may do to a view.

    Each photometric effect applies with `probability`, its strength drawn evenly from the range; sky and noise are
    in units of the data set's standard deviation.
    """

    max_shift_px: NonNegative = 4.0
    flux_scale: Range = (0.9, 1.1)
    psf_sigma_px: Range = (0.3, 0.8)
    sky_offset: SignedRange = (-0.1, 0.1)
    noise_std: Range = (0.02, 0.15)
    probability: Probability = 0.5


class ImageNet(Section):
    """Views of the reference (DINO, EsViT): random resized crops and colour jitter."""

    global_scale: Range = (0.4, 1.0)
    local_scale: Range = (0.05, 0.4)


class Views(Section):
    """Two global crops and any number of local ones, in pixels of the prepared image."""

    policy: Literal["lens_safe", "imagenet"] = "lens_safe"
    global_size: Count = 64
    local_sizes: tuple[Count, ...] = (32,)
    local_counts: tuple[Count, ...] = (6,)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    lens_safe: LensSafe = LensSafe()
    imagenet: ImageNet = ImageNet()

    @model_validator(mode="after")
    def _one_count_per_size(self) -> Views:
        if len(self.local_sizes) != len(self.local_counts):
            raise ValueError(
                f"local_sizes has {len(self.local_sizes)} entries and local_counts {len(self.local_counts)}; "
                "give one count per size"
            )
        if self.local_sizes and max(self.local_sizes) > self.global_size:
            raise ValueError(
                f"local_sizes={list(self.local_sizes)} exceeds global_size={self.global_size}; "
                "make every local size at most global_size"
            )
        return self


class Stem(Section):
    """A steerable stem in front of the backbone: `depth` convolutions, then the maximum or mean over the group."""

    group: Group = "C8"
    fields: Count = 8
    depth: Count = 2
    kernel_size: Literal[3, 5, 7] = 5
    downsample: Literal[1, 2] = 1
    pooling: Literal["max", "mean"] = "max"


class Model(Section):
    """The backbone and its projection heads; `ssl-lens models` lists the names.

    What is null is the network's own, as published; what a network does not have is refused. stages: keep the first
    few. image_size: the one size of beit_base, the largest of levit, the size that vit_small's positions are made for;
    auto is views.global_size.
    """

    name: NetworkName = "swin_tiny"
    group: Group | None = None
    image_size: Auto | Count = "auto"
    patch_size: Count | None = None
    window_size: Count | None = None
    stem_stride: Literal[1, 2, 4] | None = None
    stages: Annotated[int, Field(ge=1, le=4)] | None = None
    padding: Literal["clamp", "reference"] | None = None
    drop_path: Annotated[float, Field(ge=0, lt=1)] | None = None
    stem: Stem | None = None
    out_dim: Auto | Annotated[int, Field(ge=2)] = "auto"
    head_hidden_dim: Count = 2048
    head_bottleneck_dim: Count = 256
    head_batch_norm: bool = False
    norm_last_layer: bool = False

    @model_validator(mode="after")
    def _options_of_this_network(self) -> Model:
        for option, networks in NETWORKS_WITH.items():
            if getattr(self, option) is not None and not self.name.startswith(networks):
                raise ValueError(
                    f"{option}={getattr(self, option)} is no option of {self.name}, only of "
                    f"{', '.join(name for name in get_args(NetworkName) if name.startswith(networks))}; "
                    f"remove model.{option} or set it to null"
                )
        return self


class Loss(Section):
    """View-level and region-level self-distillation."""

    view_weight: NonNegative = 0.5
    region_weight: NonNegative = 0.5
    centering: Literal["center", "sinkhorn"] = "center"
    center_momentum: Probability = 0.9
    student_temp: Positive = 0.1
    teacher_temp: Positive = 0.04
    warmup_teacher_temp: Positive = 0.04
    warmup_teacher_temp_epochs: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _something_to_learn(self) -> Loss:
        if self.view_weight == 0 and self.region_weight == 0:
            raise ValueError("view_weight and region_weight are both 0; set one above 0")
        return self


class Optim(Section):
    """AdamW, its schedules and the teacher's momentum; batch_size counts images over all processes."""

    epochs: Count = 100
    batch_size: Annotated[int, Field(ge=2)] = 256
    accumulate: Count = 1
    lr: Auto | Positive = "auto"
    min_lr: NonNegative = 1e-6
    warmup_epochs: Annotated[int, Field(ge=0)] = 10
    weight_decay: NonNegative = 0.04
    weight_decay_end: NonNegative = 0.4
    clip_norm: Positive | None = 3.0
    freeze_last_layer_epochs: Annotated[int, Field(ge=0)] = 1
    ema_momentum: Auto | Probability = "auto"
    precision: Literal["no", "bf16", "fp16"] = "no"

    @model_validator(mode="after")
    def _warmup_ends(self) -> Optim:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs={self.warmup_epochs} is not below epochs={self.epochs}; "
                "set optim.warmup_epochs below optim.epochs"
            )
        return self


class Run(Section):
    """Where the run lives and what it writes; cpu_threads: of each process, null for an even share of the cores."""

    folder: Auto | str = "auto"
    resume: Literal["never", "auto"] = "never"
    device: Auto | Literal["cpu"] = "auto"
    cpu_threads: Count | None = None
    checkpoint_epochs: Count = 1
    keep_checkpoints: Count = 2
    log_steps: Count = 10
    wandb_project: str | None = None
