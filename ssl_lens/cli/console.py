"""What the commands say while they run."""

import logging
import warnings

from ssl_lens import launcher


def show_progress() -> None:
    """Shows this package's messages of level INFO, of the first process alone, and everybody's warnings on stderr."""
    logging.basicConfig(format="%(message)s")
    if launcher.rank() == 0:
        logging.getLogger("ssl_lens").setLevel(logging.INFO)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)  # counts the folds it skips
    # What libraries repair they warn of, and what they cannot stands in the reason of an image left out. Astropy's
    # logger is left alone: named before astropy is imported, it would be one that astropy cannot use.
    warnings.filterwarnings("ignore", module=r"(astropy|PIL)\.")
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
