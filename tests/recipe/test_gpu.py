"""The loop on a CUDA device, next to the CPU: `make test-gpu`."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ssl_lens.data.array_batches import ArrayBatches
from ssl_lens.data.batches import Plan
from ssl_lens.engine.loop import Step
from ssl_lens.engine.reporter import Reporter
from ssl_lens.engine.signals import InterruptedRun
from ssl_lens.optim import adamw
from ssl_lens.recipe.compose import Pretraining

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is visible to torch"),
]

ON_GPU = "run.device=auto"
STEPS = 6  # of a tiny run
RESNET = ("model={name: resnet_micro}",)
STEM = "model.stem={group: C4, fields: 2, depth: 1, kernel_size: 3}"


def metrics(pretraining: Pretraining) -> list[dict[str, float]]:
    return [json.loads(line) for line in pretraining.folder.metrics.read_text().splitlines()]


def loss_curve(pretraining: Pretraining) -> list[float]:
    return [record["loss"] for record in metrics(pretraining)]


@pytest.mark.parametrize("centering", ["center", "sinkhorn"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains(
    run: Callable[..., Pretraining], image_folder: Path, precision: str, centering: str
) -> None:
    """With a stem, the online probe and, in fp16, steps that the scaler skips; weights stay float32."""
    overrides = (f"optim.precision={precision}", f"method.centering={centering}", "optim.epochs=6", STEM)
    pretraining = run("half", ON_GPU, f"data.probe={image_folder}", *overrides)
    assert pretraining.accelerator.device.type == "cuda"
    student, teacher = pretraining.method.student, pretraining.method.teacher
    assert all(p.is_cuda and p.dtype == torch.float32 for p in (*student.parameters(), *teacher.parameters()))
    trained, slower = (torch.cat([p.detach().flatten() for p in net.parameters()]) for net in (student, teacher))
    assert trained.isfinite().all()
    assert 1e-5 < float((trained - slower).abs().max()) < 1
    assert not pretraining.folder.skipped_steps.exists()
    assert "probe_knn" in metrics(pretraining)[-1]


@pytest.mark.parametrize(
    ("extra", "tolerance"),
    [((), 1e-4), ((STEM, "method.centering=sinkhorn"), 1e-3), (RESNET, 1e-3)],
)
def test_the_loss_curve_is_that_of_the_cpu(
    run: Callable[..., Pretraining], extra: tuple[str, ...], tolerance: float
) -> None:
    """In float32: same views, same weights at the start, same steps; drop path draws otherwise on a GPU.

    On a CPU, weights and gradients off by 3e-7 move the curves by 7e-6, 3e-5 and 5e-6; off by 3e-4 (TF32), by 5e-3
    to 3e-2.
    """
    overrides = ("model.drop_path=0", *extra)
    expected = loss_curve(run("cpu", *overrides))
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # on by default; rounds to 10 bits
        there = loss_curve(run("gpu", ON_GPU, *overrides))
    assert len(expected) == STEPS
    assert there == pytest.approx(expected, abs=tolerance)


def test_a_compiled_run_is_the_plain_one(run: Callable[..., Pretraining]) -> None:
    """Drop path included; fused operators round otherwise."""
    plain = loss_curve(run("plain", ON_GPU, "run.compile=false"))
    compiled = run("compiled", ON_GPU, "run.compile=auto")
    assert loss_curve(compiled) == pytest.approx(plain, abs=1e-3)


def test_a_stopped_run_resumes(run: Callable[..., Pretraining], monkeypatch: pytest.MonkeyPatch) -> None:
    """Drop path included; not to the bit, as a GPU adds in any order."""
    whole = run("whole", ON_GPU)
    report = Reporter.after_step

    def stop_in_step_2(self: Reporter, step: Step) -> None:
        report(self, step)
        if step.number == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Reporter, "after_step", stop_in_step_2)
        with pytest.raises(InterruptedRun):
            run("stopped", ON_GPU)
    resumed = run("stopped", ON_GPU, "run.resume=auto")
    assert resumed.start == 4
    assert len(loss_curve(resumed)) == STEPS
    assert loss_curve(resumed) == pytest.approx(loss_curve(whole), abs=1e-4)


@pytest.mark.parametrize("resident", [True, False])
def test_batches_are_those_of_the_cpu(monkeypatch: pytest.MonkeyPatch, resident: bool) -> None:
    """Of images that fill less than half of the free memory, resident, and of others, sent batch by batch."""
    images = np.random.default_rng(0).normal(size=(10, 1, 4, 4)).astype(np.float32)
    images.setflags(write=False)  # as a memory map
    if not resident:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (images.nbytes, images.nbytes))
    here, there = (
        ArrayBatches(images, Plan(4, accumulate=2, seed=0, rank=0, world_size=1), torch.device(device))
        for device in ("cpu", "cuda")
    )
    assert isinstance(there.images, torch.Tensor) == resident
    for step in range(4):
        for (expected, index), (found, again) in zip(here.at(step), there.at(step), strict=True):
            assert found.is_cuda
            assert torch.equal(found.cpu(), expected)
            assert torch.equal(again, index)


def test_adamw_is_fused() -> None:
    layer = nn.Linear(3, 2).cuda()
    optimizer = adamw(layer)
    assert optimizer.defaults["fused"]
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    before = layer.weight.detach().clone()
    layer(torch.ones(1, 3, device="cuda")).sum().backward()
    optimizer.step()
    assert torch.allclose(before - layer.weight, torch.full_like(before, 0.1), atol=1e-6)  # Adam's first step: lr
