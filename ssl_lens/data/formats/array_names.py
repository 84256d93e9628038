"""Which of several named arrays in a file is the image."""

from __future__ import annotations

from collections.abc import Sequence

from ssl_lens.data.formats.sample import UnusableImage

NAMES = ("image", "images", "data")


def the_image_array(names: Sequence[str], kind: str) -> str:
    """The only name, or the only one whose last part is image, images or data.

    Args:
        names: of the arrays, with `/` between parts.
        kind: what the format calls them, for the message.
    Raises:
        UnusableImage: none, or more than one.
    """
    named = [name for name in names if name.rsplit("/", 1)[-1] in NAMES]
    for chosen in (names, named):
        if len(chosen) == 1:
            return chosen[0]
    shown = ", ".join(list(names)[:8]) + (", ..." if len(names) > 8 else "")
    raise UnusableImage(
        f"{len(names)} {kind}s in the file ({shown}); needed is one {kind}, or one named {', '.join(NAMES)}"
    )
