"""Options of networks: a frozen dataclass per family is its signature, its documentation and its configuration."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self, TypeAlias, Union, get_args, get_origin
from typing import get_type_hints as type_hints

from ssl_lens.errors import InputError

if TYPE_CHECKING:
    from ssl_lens.backbones.backbone import MapBackbone

DEEPEST = 1_000  # blocks of a stage
MOST = 1_000_000  # an option that counts something: layers, channels, pixels
NEAR = 0.75  # similarity of two names from which one may be a misspelling of the other


@dataclass(frozen=True)
class Bounds:
    """Smallest value of a number, and the one that it has to stay below."""

    low: float
    below: float = math.inf

    def __str__(self) -> str:
        return f"{self.low} or more" if self.below == math.inf else f"{self.low} or more and below {self.below}"


Count: TypeAlias = Annotated[int, Bounds(1)]
Counts: TypeAlias = tuple[Count, ...]
Rate: TypeAlias = Annotated[float, Bounds(0, 1)]
Ratio: TypeAlias = Annotated[float, Bounds(0)]


@dataclass(frozen=True)
class Options:
    """Base of a family's options.

    A subclass annotates its fields with int, float, bool, str, Literal, None, tuples and unions of them, numbers with
    `Bounds`; types, choices and bounds are then checked whenever one is made. What must hold between several fields is
    checked in its own `__post_init__`, after this one's.

    Raises: InputError, one line that names the field.
    """

    def __post_init__(self) -> None:
        for name, kind in type_hints(type(self), include_extras=True).items():
            value = getattr(self, name)
            _refuse_absurd(name, value)
            try:
                object.__setattr__(self, name, _checked(value, kind))
            except _WrongValueError:
                raise InputError(f"{name}={_shown(value)} should be {_described(kind)}") from None

    def config(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Inverse of `config`.

        Raises: InputError for a field that is unknown or a value that cannot be.
        """
        return cls().changed(config, owner=cls.__name__)

    def changed(self, values: Mapping[str, Any], *, owner: str, others: Iterable[str] = ()) -> Self:
        """A copy with some fields changed.

        Args:
            values: new values by the name of their field; lists stand for tuples, as in JSON and YAML.
            owner: what has these options, for an error.
            others: names that are not fields but may have been meant by an unknown one.

        Raises: InputError for a name that is not a field, or a value that cannot be.
        """
        names = field_names(type(self))
        for name in values:
            if name not in names:
                near = difflib.get_close_matches(name, [*names, *others], n=1, cutoff=NEAR)
                what = f"; the nearest is {near[0]}" if near else f", which has {', '.join(names) or 'none'}"
                raise InputError(f"{name} is not an option of {owner}{what}")
        return dataclasses.replace(self, **values)


class Family(NamedTuple):
    """A class of networks and the options of those that have a name of their own."""

    network: type[MapBackbone]
    variants: Mapping[str, Options]


def field_names(options: type[Options]) -> tuple[str, ...]:
    """Names of the options, in the order in which they are documented."""
    return tuple(field.name for field in dataclasses.fields(options))


def check_stages(stages: int | None, depths: Sequence[int]) -> None:
    """Raises InputError if more stages are to be kept than `depths` describes."""
    if stages is not None and stages > len(depths):
        raise InputError(
            f"stages={stages} is more than the {len(depths)} stages of depths={list(depths)}; "
            f"use stages={len(depths)} or fewer"
        )


def _refuse_absurd(name: str, value: Any) -> None:
    """Raises InputError for whole numbers that no network has, before anything counts to them."""
    most = DEEPEST if name in ("depth", "depths") else MOST
    for entry in value if isinstance(value, tuple | list) else (value,):
        if type(entry) is int and abs(entry) > most:
            shown = entry if abs(entry) < 10**18 else f"a number of {entry.bit_length()} bits"
            raise InputError(f"{name}={shown} is beyond every network; give {most} or less")


class _WrongValueError(Exception):
    pass


def _checked(value: Any, kind: Any) -> Any:
    """The value as its field's type has it: lists become tuples, integers floats where those are asked for."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        value = _checked(value, arguments[0])
        if any(not bound.low <= value < bound.below for bound in arguments[1:]):
            raise _WrongValueError
        return value
    if origin in (Union, types.UnionType):
        for alternative in arguments:
            try:
                return _checked(value, alternative)
            except _WrongValueError:
                continue
        raise _WrongValueError
    if origin is tuple:
        return _checked_tuple(value, arguments)
    if origin is Literal:
        right = any(type(value) is type(choice) and value == choice for choice in arguments)
    elif kind is float:
        right = type(value) in (int, float) and math.isfinite(value)  # integers are below MOST
        value = float(value) if right else value
    else:
        right = type(value) is kind
    if not right:
        raise _WrongValueError
    return value


def _checked_tuple(value: Any, kinds: tuple[Any, ...]) -> tuple[Any, ...]:
    if not isinstance(value, tuple | list):
        raise _WrongValueError
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise _WrongValueError
    return tuple(_checked(entry, kind) for entry, kind in zip(value, kinds, strict=True))


def _described(kind: Any) -> str:
    """What a value has to be, in words."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return ", ".join((_described(arguments[0]), *map(str, arguments[1:])))
    if origin in (Union, types.UnionType):
        return ", or ".join(_described(alternative) for alternative in arguments)
    if origin is Literal:
        return " or ".join(filter(None, (", ".join(map(repr, arguments[:-1])), repr(arguments[-1]))))
    if origin is tuple:
        length = "" if arguments[-1] is Ellipsis else f" of {len(arguments)}"
        return f"a list{length}, each value {_described(arguments[0])}"
    return {int: "an integer", float: "a number", bool: "true or false", str: "a word", type(None): "null"}[kind]


def _shown(value: Any) -> str:
    return repr(list(value)) if isinstance(value, tuple) else repr(value)
