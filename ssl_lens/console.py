"""What the commands say while they run."""

import logging


def show_progress() -> None:
    """Shows this package's messages of level INFO and everybody's warnings, as plain lines on stderr."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("ssl_lens").setLevel(logging.INFO)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)  # counts the folds it skips
