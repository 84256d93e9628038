"""Weighted kNN on frozen features: `ssl-lens evaluate` with the probe knn; `python eval/knn.py --help`."""

import sys

from ssl_lens.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:], "--probes", "knn"]))
