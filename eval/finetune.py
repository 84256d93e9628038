"""Supervised training from a backbone or from scratch; `python eval/finetune.py --help`."""

import sys

from ssl_lens.evaluation.finetune_command import finetune

if __name__ == "__main__":
    sys.exit(finetune())
