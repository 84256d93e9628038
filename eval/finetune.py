"""Supervised training from a backbone or from scratch: `ssl-lens finetune`; `python eval/finetune.py --help`."""

import sys

from ssl_lens.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["finetune", *sys.argv[1:]]))
