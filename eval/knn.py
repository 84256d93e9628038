"""Weighted kNN on frozen features; `python eval/knn.py --help`."""

import sys

from ssl_lens.evaluation.command import knn

if __name__ == "__main__":
    sys.exit(knn())
