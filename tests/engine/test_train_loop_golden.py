"""A whole toy run beside the reference's: every weight, centre and loss of every step."""

import json

import numpy as np
import torch
from torch import nn

from ssl_lens.backbones.backbone import Backbone
from ssl_lens.losses.center import Centering
from ssl_lens.losses.region import RegionLoss
from ssl_lens.losses.view import ViewLoss
from ssl_lens.methods.criterion import Criterion
from ssl_lens.methods.heads import ProjectionHead
from ssl_lens.methods.network import Network
from ssl_lens.methods.student_teacher import make_teacher, update_teacher
from ssl_lens.optim import adamw, clip_per_tensor, freeze_last_layer, set_hyperparameters
from ssl_lens.schedules import Schedules, scaled_lr


class ToyBackbone(Backbone):
    def __init__(self, embed_dim: int) -> None:
        super().__init__(in_channels=3, embed_dim=embed_dim, reduction=4)
        self.proj = nn.Conv2d(3, embed_dim, 4, 4)
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)

    def stages(self, images):
        return [self.norm(self.proj(images).movedim(1, -1)).movedim(-1, 1)]

    def config(self):
        return {"embed_dim": self.embed_dim}


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


def toy_schedules(config: dict) -> Schedules:
    return Schedules(
        epochs=config["epochs"],
        steps_per_epoch=config["niter"],
        lr=scaled_lr(config["lr"], config["bs"] * config["ws"]),
        final_lr=config["minlr"],
        lr_warmup_epochs=config["warm"],
        weight_decay=config["wd"],
        final_weight_decay=config["wde"],
        ema_momentum=config["m"],
        final_ema_momentum=1.0,
        teacher_temp=config["tt"],
        warmup_teacher_temp=config["wt"],
        teacher_temp_warmup_epochs=config["wte"],
        freeze_last_layer_epochs=config["freeze"],
    )


def test_golden_train_loop(golden):
    data = np.load(golden / "train_loop.npz", allow_pickle=False)
    config = json.loads(str(data["config"]))
    heads = [ProjectionHead(config["D"], config["out"], config["hid"], config["bot"]) for _ in range(2)]
    student = Network(ToyBackbone(config["D"]), *heads).double()
    student.load_state_dict({n: torch.from_numpy(data[f"init/{reference_name(n)}"]) for n in student.state_dict()})
    teacher = make_teacher(student)
    optimizer = adamw(student)
    centerings = [Centering(config["out"], config["center_momentum"]) for _ in range(2)]
    view_loss = ViewLoss(centerings[0], config["student_temp"])
    criterion = Criterion(view_loss, RegionLoss(centerings[1], config["student_temp"])).double()
    schedules = toy_schedules(config)

    def assert_equal(actual, key: str) -> None:
        np.testing.assert_allclose(actual, data[key][step].squeeze(), rtol=0, atol=1e-10, err_msg=f"{key}, step {step}")

    assert schedules.total_steps == len(data["loss"])
    for step in range(schedules.total_steps):
        now = schedules.at(step)
        set_hyperparameters(optimizer, now)
        crops = [torch.from_numpy(data[f"{kind}_crops"][step]).double() for kind in ("global", "local")]
        with torch.no_grad():
            target = teacher(crops[:1])
        losses = criterion(student(crops), target, teacher_temp=now.teacher_temp)
        losses.total.backward()
        clip_per_tensor(student.parameters(), config["clip"])
        if now.freeze_last_layer:
            freeze_last_layer(student)
        optimizer.step()
        optimizer.zero_grad()
        criterion.update_center([target])
        update_teacher(teacher, student, now.ema_momentum)

        assert_equal(losses.total.item(), "loss")
        for value, key in ((now.lr, "lr"), (now.weight_decay, "wd"), (now.ema_momentum, "momentum")):
            assert_equal(value, key)
        assert_equal(centerings[0].center, "center_after")
        assert_equal(centerings[1].center, "center_grid_after")
        for who, network in (("student", student), ("teacher", teacher)):
            for name, parameter in network.named_parameters():
                actual = parameter.detach().reshape(data[f"{who}/{reference_name(name)}"][step].shape).squeeze()
                assert_equal(actual, f"{who}/{reference_name(name)}")
