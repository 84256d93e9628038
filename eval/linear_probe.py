"""Logistic regression: `ssl-lens evaluate` with the probe linear; `python eval/linear_probe.py --help`."""

import sys

from ssl_lens.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:], "--probes", "linear"]))
