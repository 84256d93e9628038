"""Logistic regression on frozen features; `python eval/linear_probe.py --help`."""

import sys

from ssl_lens.evaluation.command import linear_probe

if __name__ == "__main__":
    sys.exit(linear_probe())
