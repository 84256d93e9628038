"""The typed recipe of a pretraining run, and the only reader of YAML."""

from __future__ import annotations

import difflib
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from ssl_lens.engine.schedules import scaled_lr
from ssl_lens.errors import InputError

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

LARGE_SET = 100_000  # images; from here on the reference's out_dim of 65,536 pays


class Section(BaseModel):
    """Frozen, strict in types, closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Simulate(Section):
    """The simulated set that stands in where `data.path` is not set."""

    count_per_class: Count = 1000
    image_size: Annotated[int, Field(ge=16)] = 64
    pixel_scale_arcsec: Positive = 0.1
    seed: Annotated[int, Field(ge=0)] = 1


class Data(Section):
    """Which images, and how raw pixels become the network's input."""

    path: str | None = None
    exclude: str | None = None
    probe: str | None = None
    in_channels: Auto | Count = "auto"
    center_crop: Count | None = None
    bin: Count = 1
    stretch: Literal["none", "asinh"] = "none"
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
    """A steerable stem in front of the backbone."""

    group: Literal["C4", "C8", "D4", "D8"] = "C8"
    fields: Count = 8
    depth: Count = 2
    kernel_size: Literal[3, 5, 7] = 5
    downsample: Literal[1, 2] = 1


class Model(Section):
    """The backbone and its projection heads.

    stages: keep the first few (null: all). patch_size, window_size, padding: Swin's. stem_stride: ResNet's.
    """

    name: Literal["swin_tiny", "swin_small", "swin_base", "swin_micro", "resnet18", "resnet_micro"] = "swin_tiny"
    patch_size: Count = 4
    window_size: Count = 7
    stem_stride: Literal[1, 2, 4] = 2
    stages: Annotated[int, Field(ge=1, le=4)] | None = None
    padding: Literal["clamp", "reference"] = "clamp"
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.1
    stem: Stem | None = None
    out_dim: Auto | Annotated[int, Field(ge=2)] = "auto"
    head_hidden_dim: Count = 2048
    head_bottleneck_dim: Count = 256
    head_batch_norm: bool = False
    norm_last_layer: bool = False


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


class Recipe(Section):
    """Everything that decides a pretraining run."""

    seed: Annotated[int, Field(ge=0)] = 0
    data: Data = Data()
    views: Views = Views()
    model: Model = Model()
    loss: Loss = Loss()
    optim: Optim = Optim()
    run: Run = Run()

    @model_validator(mode="after")
    def _batch_divides(self) -> Recipe:
        if self.optim.batch_size % self.optim.accumulate:
            raise ValueError(
                f"optim.batch_size={self.optim.batch_size} is not a multiple of "
                f"optim.accumulate={self.optim.accumulate}; set a batch size that it divides"
            )
        return self

    def to_yaml(self) -> str:
        """The whole recipe, defaults included, as YAML that `load_recipe` reads back equal."""
        text = io.StringIO()
        writer = YAML(typ="safe", pure=True)
        writer.default_flow_style = False
        writer.dump(self.model_dump(mode="json"), text)
        return text.getvalue()


def load_recipe(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a recipe and applies `key=value` overrides, `key` dotted and `value` YAML.

    `run.folder: auto` becomes `runs/<name of the recipe's file>`.

    Raises: InputError, one line that names the key, its value, what is allowed and the nearest valid key.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"recipe {path} does not exist; give a YAML file such as recipes/quickstart.yaml")
    tree = _parse_yaml(path.read_text(encoding="utf-8"), source=str(path)) or {}
    if not isinstance(tree, dict):
        raise InputError(f"recipe {path} holds a {type(tree).__name__}; write sections such as `data:` and `model:`")
    for override in overrides:
        _apply_override(tree, override)
    recipe = _validate(tree, source=str(path))
    if recipe.run.folder == "auto":
        recipe = replace(recipe, {"run.folder": f"runs/{path.stem}"})
    return recipe


def replace(recipe: Recipe, values: dict[str, Any]) -> Recipe:
    """A copy of `recipe` with the dotted keys of `values` set and validated."""
    tree = recipe.model_dump(mode="json")
    for key, value in values.items():
        _set(tree, key, value)
    return _validate(tree, source="recipe")


def resolve_auto(recipe: Recipe, *, n_images: int, in_channels: int) -> tuple[Recipe, list[str]]:
    """Replaces every `auto` that depends on the data; returns the recipe and one line on each choice.

    lr: 5e-4 · batch_size / 256, the reference's linear scaling. out_dim: 4,096, or the reference's 65,536 from
    100,000 images. ema_momentum: the reference's 0.996, lower in short runs so that the teacher's memory,
    1 / (1 - momentum) steps, is at most a twentieth of the run.
    """
    steps = recipe.optim.epochs * (n_images // recipe.optim.batch_size)
    choices: dict[str, tuple[Any, str]] = {
        "data.in_channels": (in_channels, "the images"),
        "optim.lr": (scaled_lr(5e-4, recipe.optim.batch_size), f"5e-4 * {recipe.optim.batch_size} / 256"),
        "model.out_dim": (4096 if n_images < LARGE_SET else 65536, f"{n_images} images"),
        "optim.ema_momentum": (min(0.996, max(0.5, 1 - 20 / max(steps, 1))), f"{steps} steps"),
    }
    tree = recipe.model_dump(mode="json")
    resolved = {key: choice for key, choice in choices.items() if _get(tree, key) == "auto"}
    lines = [f"{key}: auto -> {value} (from {reason})" for key, (value, reason) in resolved.items()]
    return replace(recipe, {key: value for key, (value, _) in resolved.items()}), lines


def _parse_yaml(text: str, *, source: str) -> Any:
    """YAML 1.2: `1e-4` is a number, `no` a word, `010` ten; a key given twice is refused."""
    try:
        return YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise InputError(f"{source}, line {line}: {error.problem}; correct the YAML there") from None


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise InputError(f"override {override!r} is not key=value; write for example optim.epochs=10")
    if key not in VALID_KEYS and key not in Recipe.model_fields:
        raise InputError(f"unknown key {key}={value}; {_nearest(key)}")
    _set(tree, key, _parse_yaml(value, source=f"override {override}"))


def _set(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        if not isinstance(tree.get(parent), dict):
            tree[parent] = {}
        tree = tree[parent]
    tree[last] = value


def _get(tree: dict[str, Any], key: str) -> Any:
    for part in key.split("."):
        tree = tree[part]
    return tree


def _validate(tree: dict[str, Any], *, source: str) -> Recipe:
    try:
        return Recipe.model_validate_json(json.dumps(tree, default=str))
    except ValidationError as error:
        raise InputError(f"{source}: {_one_line(error)}") from None


def _one_line(error: ValidationError) -> str:
    """The first wrong key with everything it may be, and how many more keys are wrong."""
    problems: dict[str, list[Any]] = {}
    for problem in error.errors(include_url=False):
        problems.setdefault(_dotted(problem), []).append(problem)
    (key, alternatives), *others = problems.items()
    more = f" (and {len(others)} more)" if others else ""
    first = alternatives[0]
    if first["type"] == "extra_forbidden":
        return f"unknown key {key}={first['input']!r}; {_nearest(key)}{more}"
    if first["type"] == "value_error":  # a section's own check, already a whole sentence
        return f"{key}: {first['ctx']['error']}{more}" if key else f"{first['ctx']['error']}{more}"
    allowed = " or ".join(problem["msg"].removeprefix("Input should be ") for problem in alternatives)
    return f"{key}={first['input']!r} should be {allowed}; change {key}{more}"


def _dotted(problem: Any) -> str:
    """The key of a problem, without the branch of a union that pydantic appends."""
    parts = [str(part) for part in problem["loc"]]
    while len(parts) > 1 and problem["type"] != "extra_forbidden" and ".".join(parts) not in VALID_KEYS:
        parts.pop()
    return ".".join(parts)


def _nearest(key: str) -> str:
    section, _, last = key.rpartition(".")
    siblings = [valid for valid in VALID_KEYS if valid.rpartition(".")[0] == section]
    close = difflib.get_close_matches(key, siblings, n=1, cutoff=0.5)
    close = close or difflib.get_close_matches(key, VALID_KEYS, n=1, cutoff=0.5)
    close = close or [valid for valid in VALID_KEYS if valid.rpartition(".")[2] == last][:1]
    return f"the nearest valid key is {close[0]}" if close else f"valid sections are {', '.join(Recipe.model_fields)}"


def _keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield prefix + name
        nested = [kind for kind in (field.annotation, *getattr(field.annotation, "__args__", ())) if _is_section(kind)]
        for kind in nested:
            yield from _keys(kind, f"{prefix}{name}.")


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


VALID_KEYS = tuple(_keys(Recipe))
