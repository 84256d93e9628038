"""One of several processes of a run that share one device, over gloo: what several cards would do, where there is one.

torchrun --nproc_per_node=2 benchmarks/one_card.py RECIPE [key=value ...]
"""

import os
import sys

import torch.distributed as dist

from ssl_lens.errors import one_line_errors
from ssl_lens.recipe.compose import pretrain
from ssl_lens.recipe.recipe import load_recipe


@one_line_errors
def main() -> None:
    os.environ["LOCAL_RANK"] = "0"  # by which Accelerate chooses the device; NCCL would refuse to share it
    dist.init_process_group("gloo")
    print(pretrain(load_recipe(sys.argv[1], sys.argv[2:])))


if __name__ == "__main__":
    sys.exit(main())
