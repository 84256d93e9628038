"""A step waits for its device once. On the device `meta` tensors have no content, so that reading one is an error."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ssl_lens.backbones.steerable.stem import Stem, StemmedBackbone, StemOptions
from ssl_lens.backbones.swin import Swin, SwinOptions
from ssl_lens.data.array_batches import ArrayBatches
from ssl_lens.data.batches import Plan
from ssl_lens.engine import loop
from ssl_lens.engine.schedule import Schedule
from ssl_lens.methods.dino import DINO, DINOOptions
from ssl_lens.optim import adamw
from ssl_lens.views.multicrop import Views
from ssl_lens.views.section import Views as Section

META = torch.device("meta")
aten = torch.ops.aten


class Alone:
    """What the loop asks of Accelerate, for a process alone on a device that computes nothing."""

    num_processes, process_index, scaler = 1, 0, None

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def prepare(self, method: nn.Module, optimizer: Any) -> tuple[nn.Module, Any]:
        return method, optimizer

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def unscale_gradients(self, optimizer: Any) -> None:
        pass

    def no_sync(self, module: nn.Module) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def unwrap_model(self, module: nn.Module, keep_fp32_wrapper: bool) -> nn.Module:
        return module


class Transfers(TorchDispatchMode):
    """Notes copies to a device that the processor would wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func.overloadpacket is aten._to_copy:
            to_device = args[0].device.type == "cpu" and result.device.type == "meta"
            if to_device and not kwargs.get("non_blocking", False):
                self.waited.append(str(tuple(result.shape)))
        if func.overloadpacket is aten.copy_:
            to_device = args[1].device.type == "cpu" and args[0].device.type == "meta"
            if to_device and not (kwargs.get("non_blocking", False) or (len(args) > 2 and args[2])):
                self.waited.append(str(tuple(result.shape)))
        return result


def trained(section: Section, method: DINO, device: torch.device, *, accumulate: int, steps: int) -> None:
    """Steps of the loop on images of random numbers; `any_rank` is all that may read."""
    images = torch.randn(8, 1, 20, 20).numpy()
    plan = Plan(batch_size=8, accumulate=accumulate, seed=0, rank=0, world_size=1)
    batches = ArrayBatches(images, plan, torch.device("cpu"))
    batches.device = device  # not resident: sent batch by batch
    multicrop = section.multicrop(None, (0.0, 1.0), sky=None, margin=0)

    def views_at(step: int) -> Iterator[Views]:
        for raw, index in batches.at(step):
            yield multicrop(raw, index, seed=0, epoch=step)

    schedule = Schedule(
        epochs=steps,
        steps_per_epoch=1,
        lr=1e-3,
        final_lr=1e-4,
        lr_warmup_epochs=0,
        weight_decay=0.1,
        final_weight_decay=0.1,
        method=method.schedule(steps, 1),
    )
    loop.train(
        method, adamw(method.trained), views_at, schedule, Alone(device), accumulate=accumulate, clip_norm=1.0
    )  # fmt: skip


def small_method(**options: Any) -> DINO:
    swin = Swin(2, SwinOptions(embed_dim=8, depths=(2, 2), num_heads=(1, 2), patch_size=1, window_size=3))
    stem = Stem(1, StemOptions(group="C4", fields=2, depth=1, kernel_size=3))
    given = {"out_dim": 6, "head_hidden_dim": 8, "head_bottleneck_dim": 4, "ema_momentum": 0.9} | options
    return DINO(StemmedBackbone(stem, swin), DINOOptions(**given))


@pytest.mark.parametrize(
    ("policy", "options"),
    [
        ("lens_safe", {}),
        ("imagenet", {"centering": "sinkhorn", "head_batch_norm": True}),
        ("lens_safe", {"mixup": 0.5}),
    ],
)
def test_a_step_reads_its_device_once(policy: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """From raw images to the EMA; what it sends to the device it does not wait for."""
    if "mixup" in options:
        options = options | {"region_weight": 0.0, "view_weight": 1.0}
    asked: list[int] = []

    def any_rank(flags: Any, device: torch.device) -> list[bool]:
        asked.append(len(flags))
        return [False, False, False]

    monkeypatch.setattr(loop, "any_rank", any_rank)
    monkeypatch.setattr(torch, "autocast", lambda *device, **options: contextlib.nullcontext())  # not for meta
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *device: False)
    section = Section(policy=policy, global_size=16, local_sizes=(8,), local_counts=(2,))
    method = small_method(**options).to(META)
    with Transfers() as transfers:
        trained(section, method, META, accumulate=2, steps=2)
    assert asked == [3, 3]
    assert transfers.waited == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is visible to torch")
def test_a_gpu_is_waited_for_once_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's own count of what makes the processor wait."""
    gpu = torch.device("cuda")
    section = Section(global_size=16, local_sizes=(8,), local_counts=(2,))
    method = small_method().to(gpu)
    trained(section, method, gpu, accumulate=1, steps=1)  # what is waited for once: libraries, pinned memory
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as waited:
            warnings.simplefilter("always")
            trained(section, method, gpu, accumulate=1, steps=3)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len([each for each in waited if "synchron" in str(each.message)]) == 3
