"""How far a file may expand when it is read: what it declares against the bytes that there are."""

from __future__ import annotations

import zlib

from ssl_lens.data.formats.sample import UnusableImage

_ALWAYS_ALLOWED = 64 << 20  # bytes: a cutout of any survey
_MOST_DEFLATED = 1032  # times: what zlib can do
_MOST_EXPANSION = 100  # real images, with their noise, compress 2 to 20 times


def most_bytes(stored: int) -> int:
    """Bytes to which `stored` bytes may expand."""
    return max(_ALWAYS_ALLOWED, _MOST_EXPANSION * stored)


def check_expansion(declared: int, stored: int, what: str) -> None:
    """Refuses to expand `stored` bytes to `declared` bytes where no image does so.

    Raises: UnusableImage, before anything is allocated.
    """
    if declared > most_bytes(stored):
        raise UnusableImage(
            f"{what} declares {declared} bytes in {stored} stored ones; at most {most_bytes(stored)} are read"
        )


def check_complete(declared: int, present: int, what: str) -> None:
    """Refuses data that is shorter than declared.

    Raises: UnusableImage, before anything is allocated.
    """
    if declared > present:
        raise UnusableImage(f"{what} declares {declared} bytes but {max(present, 0)} are there: truncated or damaged")


def check_deflated(data: bytes, most: int, what: str) -> None:
    """Refuses zlib data that unpack to more than they should, where that may be much.

    Args:
        most: bytes to which they should unpack.

    Raises: UnusableImage, or what zlib raises for damaged data.
    """
    if _MOST_DEFLATED * len(data) > _ALWAYS_ALLOWED and len(zlib.decompressobj().decompress(data, most + 1)) > most:
        raise UnusableImage(f"{what} expands to more than its {most} bytes: damaged")
