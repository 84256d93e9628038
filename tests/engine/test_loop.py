"""The loop with the real method: a whole toy run next to the reference's, every weight, centre and loss of a step."""

import json
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn

from ssl_lens.backbones.backbone import Backbone
from ssl_lens.engine.loop import Step, train
from ssl_lens.engine.processes import join_processes
from ssl_lens.engine.schedule import Schedule
from ssl_lens.methods.dino import DINO, DINOOptions
from ssl_lens.optim import adamw
from ssl_lens.schedules import scaled_lr
from ssl_lens.views.multicrop import Views


@pytest.fixture
def accelerator() -> Iterator[Accelerator]:
    joined = join_processes(cpu=True, precision="no", cpu_threads=torch.get_num_threads())
    yield joined
    joined.end_training()


class ToyBackbone(Backbone):
    def __init__(self, embed_dim: int) -> None:
        super().__init__(in_channels=3, embed_dim=embed_dim, reduction=4)
        self.proj = nn.Conv2d(3, embed_dim, 4, 4)
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)

    def stages(self, images):
        return [self.norm(self.proj(images).movedim(1, -1)).movedim(-1, 1)]


def reference_name(name: str) -> str:
    for ours, theirs in (
        ("backbone.", ""),
        ("view_head.", "head."),
        ("region_head.", "head_dense."),
        ("parametrizations.weight.original0", "weight_g"),
        ("parametrizations.weight.original1", "weight_v"),
    ):
        name = name.replace(ours, theirs)
    return name


def toy_method(data: np.lib.npyio.NpzFile, config: dict) -> DINO:
    options = DINOOptions(
        out_dim=config["out"],
        head_hidden_dim=config["hid"],
        head_bottleneck_dim=config["bot"],
        center_momentum=config["center_momentum"],
        student_temp=config["student_temp"],
        teacher_temp=config["tt"],
        warmup_teacher_temp=config["wt"],
        warmup_teacher_temp_epochs=config["wte"],
        freeze_last_layer_epochs=config["freeze"],
        ema_momentum=config["m"],
    )
    method = DINO(ToyBackbone(config["D"]), options).double()
    initial = {n: torch.from_numpy(data[f"init/{reference_name(n)}"]) for n in method.student.state_dict()}
    method.student.load_state_dict(initial)
    method.teacher.load_state_dict(initial)
    return method


def test_golden_train_loop(golden, accelerator: Accelerator) -> None:
    data = np.load(golden / "train_loop.npz", allow_pickle=False)
    config = json.loads(str(data["config"]))
    method = toy_method(data, config)
    schedule = Schedule(
        epochs=config["epochs"],
        steps_per_epoch=config["niter"],
        lr=scaled_lr(config["lr"], config["bs"] * config["ws"]),
        final_lr=config["minlr"],
        lr_warmup_epochs=config["warm"],
        weight_decay=config["wd"],
        final_weight_decay=config["wde"],
        method=method.schedule(config["epochs"], config["niter"]),
    )
    steps: list[int] = []

    def views_at(step: int) -> list[Views]:
        crops = [torch.from_numpy(data[f"{kind}_crops"][step]).double() for kind in ("global", "local")]
        return [Views(crops[0], (crops[1],))]

    class Comparison:
        def after_step(self, step: Step) -> None:
            steps.append(step.number)

            def assert_equal(actual, key: str) -> None:
                expected = data[key][step.number].squeeze()
                np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-10, err_msg=f"{key}, step {step.number}")

            assert_equal(step.losses["total"].item(), "loss")
            now = step.now
            for value, key in ((now.lr, "lr"), (now.weight_decay, "wd"), (now.method.ema_momentum, "momentum")):
                assert_equal(value, key)
            assert_equal(method.view_loss.centering.center, "center_after")
            assert_equal(method.region_loss.centering.center, "center_grid_after")
            for who, network in (("student", method.student), ("teacher", method.teacher)):
                for name, parameter in network.named_parameters():
                    key = f"{who}/{reference_name(name)}"
                    assert_equal(parameter.detach().reshape(data[key][step.number].shape).squeeze(), key)

    done = train(
        method,
        adamw(method.trained),
        views_at,
        schedule,
        accelerator,
        clip_norm=config["clip"],
        observers=[Comparison()],
    )
    assert done == len(data["loss"])
    assert steps == list(range(len(data["loss"])))
