"""The typed recipe of a pretraining run, and the only reader of YAML."""

from __future__ import annotations

import difflib
import io
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, ScalarEvent

from ssl_lens.backbones import catalog
from ssl_lens.backbones.options import field_names
from ssl_lens.backbones.section import Model
from ssl_lens.backbones.steerable.stem import StemOptions
from ssl_lens.data.section import Data
from ssl_lens.engine.section import Optim
from ssl_lens.errors import InputError, renamed
from ssl_lens.files import read_text
from ssl_lens.methods.catalog import METHODS
from ssl_lens.methods.method import Choice, MethodOptions
from ssl_lens.recipe.library import recipe_names, recipe_path
from ssl_lens.recipe.paths import with_absolute_paths
from ssl_lens.representation.section import FeaturesOfRun
from ssl_lens.representation.shipped import is_shipped
from ssl_lens.runs.section import Run
from ssl_lens.schedules import scaled_lr
from ssl_lens.section import Section
from ssl_lens.simulation.section import Simulate
from ssl_lens.views.section import Views

DEFAULT_METHOD = "dino"
MOST_YAML = 32 << 10  # bytes of a recipe, which has a few thousand
DEEPEST = 16  # sections in one another; a recipe has three
MANY_NAMES = 8  # an error lists that many allowed names, of more only the nearest


_NO_TEXT = re.compile("[\0\ud800-\udfff]")  # which no file's name can have


Method = TypeVar("Method", bound=MethodOptions)


class Recipe(Section, Generic[Method]):
    """Everything that decides a pretraining run; the section `method` is that of the method of its name."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    data: Data = Data()
    simulate: Simulate = Simulate()
    views: Views = Views()
    model: Model = Model()
    method: Method
    optim: Optim = Optim()
    features: FeaturesOfRun = FeaturesOfRun()
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
    """Reads a recipe, by path or by the name of a shipped one, and applies `key=value` overrides.

    `key` is dotted, `value` YAML, or text that starts with `*`. Relative paths in the file start at its folder, those
    of overrides at the working folder; the recipe holds absolute ones.
    `run.folder: auto` becomes `runs/<name of the recipe's file>`.

    Raises: InputError, one line that names the key, its value, what is allowed and the nearest valid key.
    """
    path = recipe_path(path)
    tree = _parse_yaml(read_text(path, most=MOST_YAML), source=str(path)) or {}
    if not isinstance(tree, dict):
        raise InputError(f"recipe {path} holds a {type(tree).__name__}; write sections such as `data:` and `model:`")
    recipe = _overridden(with_absolute_paths(tree, path.parent), overrides, source=str(path))
    if recipe.run.folder == "auto":
        recipe = replace(recipe, {"run.folder": f"runs/{path.stem}"})
    elif recipe.run.folder.startswith("~"):
        recipe = replace(recipe, {"run.folder": os.path.expanduser(recipe.run.folder)})
    return recipe


def recipe_of_network(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """The default recipe of a network, changed by `key=value` overrides as in `load_recipe`.

    Raises: InputError as `load_recipe`.
    """
    return _overridden({"model": {"name": name}}, overrides, source=name)


def recipe_of(model: str, overrides: Sequence[str] = ()) -> Recipe | None:
    """The recipe that a network's name, or a recipe's name or file, stands for, changed by overrides.

    None for what is trained: a run, an export, or a shipped backbone. The name of a network comes before a folder of
    that name, which is to be written `./name`; that of a recipe after it, as runs are called like their recipes.

    Raises: InputError if `model` is nothing of all this, or there are overrides of a run or an export.
    """
    if model.endswith((".yaml", ".yml")) or (model in recipe_names() and not Path(model).exists()):
        return load_recipe(model, overrides)
    if is_shipped(model):
        _refuse_changes(model, overrides)
        return None
    if catalog.is_name(model) or ("/" not in model and not Path(model).exists()):
        return recipe_of_network(model, overrides)  # or says which names there are
    _refuse_changes(model, overrides)
    return None


def _refuse_changes(model: str, overrides: Sequence[str]) -> None:
    if overrides:
        raise InputError(
            f"{overrides[0]} cannot change {model}, whose network and preprocessing are settled; "
            "give a recipe or a network's name to train another from scratch"
        )


def replace(recipe: Recipe, values: dict[str, Any]) -> Recipe:
    """A copy of `recipe` with the dotted keys of `values` set and validated."""
    tree = recipe.model_dump(mode="json")
    for key, value in values.items():
        _set(tree, key, value)
    return _validate(tree, source="recipe")


def resolve_auto(recipe: Recipe, *, n_images: int, in_channels: int) -> tuple[Recipe, list[str]]:
    """Replaces every `auto` that depends on the data; returns the recipe and one line on each choice.

    lr: 5e-4 · batch_size / 256, the reference's linear scaling; the method's own are those of its options' `choices`.
    """
    optim = recipe.optim
    steps = optim.epochs * (n_images // optim.batch_size)
    choices = {
        "data.in_channels": Choice(in_channels, "the images"),
        "optim.lr": Choice(scaled_lr(5e-4, optim.batch_size), f"5e-4 * {optim.batch_size} / 256"),
    }
    own = recipe.method.choices(n_images=n_images, steps=steps)
    choices |= {f"method.{name}": choice for name, choice in own.items()}
    tree = recipe.model_dump(mode="json")
    resolved = {key: choice for key, choice in choices.items() if _get(tree, key) == "auto"}
    lines = [f"{key}: auto -> {value} (from {reason})" for key, (value, reason) in resolved.items()]
    return replace(recipe, {key: value for key, (value, _) in resolved.items()}), lines


def _parse_yaml(text: str, *, source: str) -> Any:
    """YAML 1.2: `1e-4` is a number, `no` a word, `010` ten; a key given twice is refused."""
    try:
        _check_form(text, source)
        return YAML(typ="safe", pure=True).load(text)
    except InputError:
        raise
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise InputError(f"{source}, line {line}: {error.problem}; correct the YAML there") from None
    except Exception as error:  # characters that YAML has not, numbers and dates that cannot be: of many types
        raise InputError(f"{source} is not YAML ({error}); correct it") from None


def _check_form(text: str, source: str) -> None:
    """Refuses what a few bytes make large, before values are made of it: aliases, and sections without end."""
    depth = 0
    for event in YAML(typ="safe", pure=True).parse(text):
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if isinstance(event, AliasEvent) or depth > DEEPEST:
            what = f"more than {DEEPEST} sections in one another" if depth > DEEPEST else f"an alias, *{event.anchor}"
            raise InputError(f"{source}, line {event.start_mark.line + 1}: {what}; write the values themselves")
        if isinstance(event, ScalarEvent) and _NO_TEXT.search(event.value):
            raise InputError(f"{source}, line {event.start_mark.line + 1}: characters that are no text; correct them")


def _overridden(tree: dict[str, Any], overrides: Sequence[str], *, source: str) -> Recipe:
    for override in overrides:
        _apply_override(tree, override)
    return _validate(with_absolute_paths(tree, Path.cwd()), source=source)


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise InputError(f"override {override!r} is not key=value; write for example optim.epochs=10")
    section = key.rpartition(".")[0]
    if section != "method" and key not in VALID_KEYS and key not in Recipe.model_fields:  # methods: once one is known
        raise InputError(f"unknown key {key}={value}; {_nearest(key)}")
    is_pattern = value.startswith("*")  # to YAML an alias, which one value alone cannot have: `data.files=*data.fits`
    _set(tree, key, value if is_pattern else _parse_yaml(value, source=f"override {override}"))


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
    kind = _kind(tree, source)
    try:
        return kind.model_validate_json(_json(tree, source))
    except ValidationError as error:
        raise InputError(f"{source}: {_one_line(error, kind)}") from None


def _json(tree: dict[str, Any], source: str) -> str:
    try:
        return json.dumps(tree, default=str)
    except (TypeError, ValueError) as error:  # keys that are no words
        raise InputError(f"{source}: {error}; write sections and options as words") from None


def recipe_class(method: str) -> type[Recipe]:
    """The recipe whose section `method` is that of the method of this name."""
    parametrized: Any = Recipe
    return parametrized[METHODS[method].Options]


def _kind(tree: dict[str, Any], source: str) -> type[Recipe]:
    """The recipe whose section `method` is that of the method which the tree names, by default the first."""
    method = tree.setdefault("method", {})
    if not isinstance(method, dict):
        return recipe_class(DEFAULT_METHOD)  # which refuses it
    name = method.setdefault("name", DEFAULT_METHOD)
    if not isinstance(name, str) or name not in METHODS:
        nearest = difflib.get_close_matches(str(name), METHODS, n=3, cutoff=0.3) or METHODS
        raise InputError(f"{source}: method.name={name!r} is unknown; the nearest are {', '.join(nearest)}")
    return recipe_class(name)


def _one_line(error: ValidationError, kind: type[Recipe]) -> str:
    """The first wrong key with everything it may be, and how many more keys are wrong."""
    problems: dict[str, list[Any]] = {}
    for problem in error.errors(include_url=False):
        problems.setdefault(_dotted(problem), []).append(problem)
    (key, alternatives), *others = problems.items()
    more = f" (and {len(others)} more)" if others else ""
    first = alternatives[0]
    if first["type"] == "extra_forbidden":
        return f"{_unknown(key, first['input'], kind)}{more}"
    if first["type"] == "value_error":  # a section's own check, a whole sentence about its own arguments
        return _with_keys(str(first["ctx"]["error"]), key) + more
    if first["type"] == "literal_error":
        names = re.findall("'([^']*)'", first["ctx"]["expected"])
        if len(names) > MANY_NAMES:
            nearest = difflib.get_close_matches(str(first["input"]), names, n=3, cutoff=0.3) or names
            return f"{key}={first['input']!r} is unknown; the nearest are {', '.join(nearest)}{more}"
    allowed = " or ".join(problem["msg"].removeprefix("Input should be ") for problem in alternatives)
    return f"{key}={first['input']!r} should be {allowed}; change {key}{more}"


def _with_keys(sentence: str, section: str) -> str:
    """What a section says of its arguments, by their keys in the recipe; a sentence without any begins with its key."""
    own = {key.rpartition(".")[2]: key for key in VALID_KEYS if key.rpartition(".")[0] == section}
    named = renamed(sentence, own)
    return named if not section or named != sentence else f"{section}: {sentence}"


def _dotted(problem: Any) -> str:
    """The key of a problem, without the branch of a union that pydantic appends."""
    parts = [str(part) for part in problem["loc"]]
    while len(parts) > 1 and problem["type"] != "extra_forbidden" and ".".join(parts) not in VALID_KEYS:
        parts.pop()
    return ".".join(parts)


def _unknown(key: str, value: Any, kind: type[Recipe]) -> str:
    """What is said of a key that this kind of recipe does not have."""
    section, _, option = key.rpartition(".")
    if section != "method":
        return f"unknown key {key}={value!r}; {_nearest(key)}"
    options: type[MethodOptions] = kind.model_fields["method"].annotation  # type: ignore[assignment]
    name = options.model_fields["name"].default
    others = [other for other, method in METHODS.items() if option in method.Options.model_fields]
    if others:
        return (
            f"{key}={value!r} is an option of {' and '.join(others)}, not of {name}; remove it, or give "
            f"method={{name: {name}}} to begin with the defaults of {name}"
        )
    return f"unknown key {key}={value!r}; {_nearest(key, tuple(_keys(options, 'method.')))}"


def _nearest(key: str, siblings: Sequence[str] = ()) -> str:
    """The valid key that may have been meant; `siblings`: of its section, where not all of them are valid."""
    section, _, last = key.rpartition(".")
    siblings = siblings or [valid for valid in VALID_KEYS if valid.rpartition(".")[0] == section]
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
    return isinstance(kind, type) and issubclass(kind, BaseModel)


VALID_KEYS = (
    *dict.fromkeys(key for method in METHODS for key in _keys(recipe_class(method))),
    *(f"model.{option}" for option in catalog.all_option_names()),
    *(f"model.stem.{option}" for option in field_names(StemOptions)),
)
