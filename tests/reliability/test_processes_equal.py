"""Two processes are one: in float64 to rounding, and when a run goes on with another number of them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor

pytestmark = pytest.mark.reliability

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys
import torch
import torch.distributed as dist
from ssl_lens.data.pixels.preprocess import Preprocess
from ssl_lens.recipe import compose
from ssl_lens.recipe.recipe import load_recipe

torch.set_default_dtype(torch.float64)
linear = Preprocess.linear
Preprocess.linear = lambda self, images: linear(self, images).double()
compose.save_views = lambda *views, **how: None
if "no reduction" in sys.argv:
    from ssl_lens.losses import center
    center.dist.all_reduce = lambda *tensors, **how: None
compose.pretrain(load_recipe(sys.argv[1], [word for word in sys.argv[2:] if "=" in word]))
"""


def _train(runs, name: str, processes: int, *words: str, epochs: int = 4, port: int = 29700) -> dict[str, Tensor]:
    script = runs.root / "train.py"
    script.write_text(SCRIPT)
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", f"--nproc_per_node={processes}", f"--master_port={port}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*start, str(script), str(runs.recipe(name, epochs)), *words],
        cwd=runs.root,
        env=environment | {"SSL_LENS_CACHE": str(runs.root / "cache")},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return load_file(max((runs.folder(name) / "checkpoints").glob("step_*")) / "method.safetensors")


def _difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """Largest, but for the bias of keys, which a softmax ignores, so that its gradient is rounding alone."""
    assert ours.keys() == theirs.keys()
    largest = 0.0
    for key, value in ours.items():
        difference = (value - theirs[key]).double().abs()
        if key.endswith("attn.qkv.bias"):
            query, _, values = difference.chunk(3)
            difference = max(query.max(), values.max())
        largest = max(largest, float(difference.max()))
    return largest


def test_two_processes_equal_one_to_rounding(runs):
    """And the control whose centres are not reduced over the processes does not."""
    still = "model.drop_path=0"
    one = _train(runs, "one", 1, still)
    assert next(iter(one.values())).dtype.itemsize == 8
    assert _difference(one, _train(runs, "two", 2, still, port=29701)) <= 1e-12
    assert _difference(one, _train(runs, "apart", 2, still, "no reduction", port=29702)) > 1e-6


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_run_goes_on_with_another_number_of_processes(runs, before, after):
    still = "model.drop_path=0"
    whole = _train(runs, "whole", 1, still)
    _train(runs, "changed", before, still, epochs=4, port=29703 + before)
    folder = runs.folder("changed") / "checkpoints"
    for last in sorted(folder.glob("step_*"))[1:]:
        last.rename(folder / f"kept_{last.name}")
    changed = _train(runs, "changed", after, still, port=29705 + after)
    assert 0 <= _difference(whole, changed) <= 1e-6
