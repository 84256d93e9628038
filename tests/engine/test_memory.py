"""A batch that the memory does not hold."""

import pytest
import torch

from ssl_lens.engine.memory import lack_of_memory_reported
from ssl_lens.errors import InputError

CPU = torch.device("cpu")
ON_GPU = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
ON_CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried ...")


@pytest.mark.parametrize("error", [ON_GPU, ON_CPU], ids=["gpu", "cpu"])
@pytest.mark.parametrize(
    ("batch_size", "accumulate", "processes", "advised"),
    [
        (512, 1, 1, "set accumulate=2,"),
        (512, 4, 2, "set accumulate=8,"),
        (18, 2, 1, "set accumulate=6,"),  # the batch is not a multiple of 4 or 5
        (12, 1, 3, "set accumulate=2,"),
        (6, 2, 1, "lower batch_size,"),  # 3 parts of two would be no smaller than asked for
        (10, 1, 2, "lower batch_size,"),  # of 5 each, and a part of one image has nothing to be told apart from
    ],
)
def test_it_says_which_parts_may_fit(
    error: Exception, batch_size: int, accumulate: int, processes: int, advised: str
) -> None:
    at_once = batch_size // accumulate // processes
    named = f"{at_once} images at once, those of batch_size={batch_size} with accumulate={accumulate};"
    with (
        pytest.raises(InputError, match=named) as raised,
        lack_of_memory_reported(CPU, batch_size, accumulate, processes),
    ):
        raise error
    assert f"; {advised}" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="^another$"), lack_of_memory_reported(CPU, 8, 1, 1):
        raise RuntimeError("another")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is visible to torch")
def test_a_real_lack_of_memory() -> None:
    gpu = torch.device("cuda")
    total = torch.cuda.get_device_properties(gpu).total_memory
    with (
        pytest.raises(InputError, match=r"the GPU's memory of \d+ GiB cannot hold"),
        lack_of_memory_reported(gpu, 8, 1, 1),
    ):
        torch.empty(2 * total, dtype=torch.uint8, device=gpu)
