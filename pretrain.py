"""Pretrains a backbone: accelerate launch pretrain.py RECIPE [key=value ...]"""

import sys

from ssl_lens.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["pretrain", *sys.argv[1:]]))
