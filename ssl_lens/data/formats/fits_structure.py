"""The header-data units of a FITS file, walked before astropy sees them: each whole, and none of an absurd form.

Astropy believes what a header declares, and would list 99999999999999 axes; what it cannot read behind a unit it takes,
with a warning, for the end of the file.
"""

from __future__ import annotations

import math
import re
from typing import BinaryIO, NamedTuple

from ssl_lens.data.formats.limits import check_complete, check_expansion
from ssl_lens.data.formats.sample import UnusableImage

_BLOCK, _CARD = 2880, 80  # bytes
_LONGEST_HEADER = 4 << 20  # bytes; a drizzled image with its history has a tenth
_MOST = 999  # axes, and columns of a table: of the standard
_PIXEL_BITS = (8, 16, 32, 64, -32, -64)
_PADDING = b"\0 \r\n"  # also of tapes, behind the last unit
_END = re.compile(rb"END {77}|END {5}")
_CARD_READ = re.compile(rb"(BITPIX|Z?NAXIS\d*|[PG]COUNT|GROUPS|TFIELDS|ZIMAGE|ZBITPIX|ZTILE\d+) *=([^/]*)")


class _Unit(NamedTuple):
    """A unit: its number in the file, what its header says of its form, and where its data begin."""

    number: int
    values: dict[str, str]
    data: int

    def integer(self, key: str, default: int | None = None) -> int:
        text = self.values.get(key)
        if text is None and default is not None:
            return default
        if text is None or not re.fullmatch(r"[+-]?\d{1,18}", text):
            raise UnusableImage(f"{self} has {key}={text or 'nothing'}, which is not an integer: damaged")
        return int(text)

    def shape(self, prefix: str = "") -> list[int]:
        axes = self.integer(f"{prefix}NAXIS")
        lengths = [self.integer(f"{prefix}NAXIS{axis}") for axis in range(1, axes + 1)] if 0 <= axes <= _MOST else [-1]
        if min(lengths, default=0) < 0:
            raise UnusableImage(f"{self} declares {axes} axes, or one of a length below 0: damaged")
        return lengths

    def data_size(self) -> int:
        """Bytes of its data, without padding, as the standard counts them."""
        bits, lengths = self.integer("BITPIX"), self.shape()
        groups, extra, columns = self.integer("GCOUNT", 1), self.integer("PCOUNT", 0), self.integer("TFIELDS", 0)
        if bits not in _PIXEL_BITS or min(groups, extra, columns) < 0 or columns > _MOST:
            raise UnusableImage(
                f"{self} declares BITPIX={bits}, GCOUNT={groups}, PCOUNT={extra}, TFIELDS={columns}, which cannot be: "
                "damaged"
            )
        if lengths and lengths[0] == 0 and self.values.get("GROUPS") == "T":  # random groups
            lengths = lengths[1:]
        return abs(bits) // 8 * groups * (extra + math.prod(lengths)) if lengths else 0

    def __str__(self) -> str:
        return _called(self.number)


def check_units(file: BinaryIO, size: int) -> int:
    """Walks all units of a FITS file of `size` bytes, and counts them.

    Raises: UnusableImage if a header or data reach beyond the end, numbers cannot be, or something behind a unit is
        neither another one nor padding.
    """
    place = number = 0
    while place < size:
        unit = _unit(file, place, number)
        if unit is None:
            break
        declared = unit.data_size()
        check_complete(declared, size - unit.data, str(unit))
        if "ZIMAGE" in unit.values:
            _check_compressed(unit, size)
        place = unit.data + -(-declared // _BLOCK) * _BLOCK
        number += 1
    return number


def _called(number: int) -> str:
    return f"FITS unit {number or 'PRIMARY'}"


def _unit(file: BinaryIO, start: int, number: int) -> _Unit | None:
    """The unit that starts at a place; None if nothing but padding lies there."""
    file.seek(start)
    values: dict[str, str] = {}
    for first in range(0, _LONGEST_HEADER, _BLOCK):
        block = file.read(_BLOCK)
        if first == 0 and number and not block.startswith(b"XTENSION"):
            while block and not block.strip(_PADDING):
                block = file.read(_BLOCK)
            if not block:
                return None
            raise UnusableImage(f"what follows {_called(number - 1)} at byte {start} is not a unit: damaged")
        for place in range(0, len(block), _CARD):
            card = block[place : place + _CARD]
            if _END.match(card):
                return _Unit(number, values, start + first + _BLOCK)
            found = _CARD_READ.match(card)
            if found is not None:
                key, value = (text.decode("ascii", "replace").strip() for text in found.groups())
                if values.setdefault(key, value) != value:
                    raise UnusableImage(f"{_called(number)} says both {key}={values[key]} and {value}: damaged")
        if len(block) < _BLOCK:
            raise UnusableImage(f"{_called(number)} has no end of its header: truncated or damaged")
    raise UnusableImage(f"{_called(number)} has a header of more than {_LONGEST_HEADER} bytes: damaged")


def _check_compressed(unit: _Unit, size: int) -> None:
    """Refuses a compressed image that is far larger than its file, or one of whose tiles is."""
    lengths = unit.shape("Z")
    tile = [unit.integer(f"ZTILE{axis}", 1 if axis > 1 else length) for axis, length in enumerate(lengths, 1)]
    if min(tile, default=1) < 1:
        raise UnusableImage(f"{unit} declares a tile of length {min(tile)}: damaged")
    bytes_each = abs(unit.integer("ZBITPIX")) // 8
    check_expansion(math.prod(lengths) * bytes_each, size, str(unit))
    check_expansion(math.prod(tile) * bytes_each, size, f"a tile of {unit}")
