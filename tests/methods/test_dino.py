"""DINO and EsViT: losses, centres, teacher and schedule, by small numbers and next to the reference."""

import json
import math

import numpy as np
import pytest
import torch
from flat_names import Named
from rows import output_from_rows
from timm.layers import DropPath
from torch import nn

from ssl_lens.backbones.backbone import MapBackbone
from ssl_lens.losses.center import Centering
from ssl_lens.losses.region import RegionLoss, match_regions
from ssl_lens.losses.view import ViewLoss
from ssl_lens.methods.dino import DINO, DINOOptions, freeze_last_layer, make_teacher, update_teacher
from ssl_lens.methods.heads import ProjectionHead
from ssl_lens.methods.network import Network, Output
from ssl_lens.optim import adamw, set_hyperparameters
from ssl_lens.views.multicrop import Views


class DroppingBackbone(MapBackbone):
    """One convolution with batch norm and a residual path that is often dropped."""

    def __init__(self) -> None:
        super().__init__(in_channels=1, embed_dim=4, reduction=8)
        self.patches = nn.Sequential(nn.Conv2d(1, 4, 8, 8), nn.BatchNorm2d(4))
        self.drop_path = DropPath(0.5)

    def stages(self, images):
        maps = self.patches(images)
        return [maps + self.drop_path(maps)]


def dino(**options) -> DINO:
    torch.manual_seed(0)
    small = {"out_dim": 6, "head_hidden_dim": 5, "head_bottleneck_dim": 3, "ema_momentum": 0.9}
    return DINO(DroppingBackbone(), DINOOptions(**(small | options))).double()


def random_output(n_tokens: list[int], seed: int, n_images: int = 4, out_dim: int = 6) -> Output:
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    return Output(
        randn(len(n_tokens), n_images, 5),
        randn(len(n_tokens), n_images, out_dim),
        tuple(randn(1, n_images, n, out_dim) for n in n_tokens),
        tuple(randn(1, n_images, n, 5) for n in n_tokens),
    )


def images(output: Output, chosen: slice) -> Output:
    return Output(
        output.view_features[:, chosen],
        output.view_logits[:, chosen],
        tuple(part[:, chosen] for part in output.region_logits),
        tuple(part[:, chosen] for part in output.regions),
    )


def test_total_is_the_weighted_sum():
    student, target = random_output([9, 9, 4], seed=0), random_output([9, 9], seed=1)
    losses = {
        name: loss.item()
        for name, loss in dino(view_weight=0.3, region_weight=0.7).compare(student, target, 0.05).items()
    }
    assert losses["total"] == pytest.approx(0.3 * losses["view_loss"] + 0.7 * losses["region_loss"], rel=1e-14)
    assert abs(losses["view_loss"] - losses["region_loss"]) > 0.01
    halves = dino().compare(student, target, 0.05)
    assert halves["total"].item() == pytest.approx((losses["view_loss"] + losses["region_loss"]) / 2, rel=1e-14)


@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_without_region_loss_it_is_dino(weight: float):
    student, target = random_output([9, 9, 4], seed=0), random_output([9, 9], seed=1)
    expected = ViewLoss(Centering(6)).double()(student.view_logits, target.view_logits, teacher_temp=0.05)
    method = dino(view_weight=weight, region_weight=0)
    losses = method.compare(student, target, 0.05)
    assert losses["total"].item() == weight * losses["view_loss"].item() == weight * expected.item()
    assert "region_loss" not in losses
    assert method.student.region_head is None
    method.update_centers([target])
    assert method.view_loss.centering.center.abs().sum() > 0


def test_both_losses_have_the_students_temperature_and_the_centres_their_momentum():
    student, target = random_output([9, 9, 4], seed=0), random_output([9, 9], seed=1)
    method = dino(student_temp=0.3, center_momentum=0.6)
    view = ViewLoss(Centering(6), 0.3).double()(student.view_logits, target.view_logits, teacher_temp=0.05)
    region = RegionLoss(Centering(6), 0.3).double()(
        student.region_logits, student.regions, target.region_logits, target.regions, teacher_temp=0.05
    )
    losses = method.compare(student, target, 0.05)
    assert losses["view_loss"].item() == pytest.approx(view.item(), rel=1e-14)
    assert losses["region_loss"].item() == pytest.approx(region.item(), rel=1e-14)
    method.update_centers([target])
    torch.testing.assert_close(method.view_loss.centering.center, 0.4 * target.view_logits.mean(dim=(0, 1)))
    rows = torch.cat(target.region_logits, dim=2).flatten(0, 2)
    torch.testing.assert_close(method.region_loss.centering.center, 0.4 * rows.mean(dim=0))


def test_without_view_loss_there_is_no_view_head():
    method = dino(view_weight=0, region_weight=0.5)
    views = Views(torch.randn(2, 4, 1, 16, 16, dtype=torch.float64))
    method.start_step()
    losses = method.losses(views, method.schedule(1, 2).at(0))
    assert set(losses) == {"total", "region_loss"}
    assert losses["total"].item() == losses["region_loss"].item() / 2
    assert method.student.view_head is None
    assert set(method.metrics(method.schedule(1, 2).at(0))) == {
        "region_teacher_entropy",
        "region_mean_entropy",
        "region_information",
    }
    assert method.features().shape == (8, 4)


def test_the_two_centers_are_separate_and_saved():
    method, target = dino(), random_output([9, 9], seed=0)
    method.update_centers([target])
    state = {name: value for name, value in method.state_dict().items() if name.endswith("center")}
    assert set(state) == {"view_loss.centering.center", "region_loss.centering.center"}
    torch.testing.assert_close(state["view_loss.centering.center"], 0.1 * target.view_logits.mean(dim=(0, 1)))
    rows = torch.cat(target.region_logits, dim=2).flatten(0, 2)
    torch.testing.assert_close(state["region_loss.centering.center"], 0.1 * rows.mean(dim=0))


def test_accumulated_outputs_move_the_center_as_one_batch():
    whole, parts, target = dino(), dino(), random_output([9, 9], seed=0)
    whole.update_centers([target])
    parts.update_centers([images(target, slice(0, 1)), images(target, slice(1, 4))])
    for name, center in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], center, rtol=0, atol=1e-15)


def test_accumulated_losses_are_the_loss_of_one_batch():
    method, student, target = dino(), random_output([9, 9, 4], seed=0), random_output([9, 9], seed=1)
    whole = method.compare(student, target, 0.05)["total"].item()
    halves = [
        method.compare(images(student, part), images(target, part), 0.05)["total"].item()
        for part in (slice(0, 2), slice(2, 4))
    ]
    assert sum(halves) / 2 == pytest.approx(whole, rel=1e-13)


def test_sinkhorn_has_no_center_to_update():
    method = dino(centering="sinkhorn")
    before = set(method.state_dict())
    method.update_centers([random_output([9, 9], seed=0)])
    assert set(method.state_dict()) == before
    assert not [name for name in before if name.endswith("center")]


def test_a_step_moves_centers_and_teacher_and_the_next_starts_afresh():
    method, now = dino(), dino().schedule(1, 2).at(0)
    method.start_step()
    method.losses(Views(torch.randn(2, 4, 1, 16, 16, dtype=torch.float64)), now)
    assert method.features().shape == (8, 4)
    with torch.no_grad():
        method.student.backbone.patches[0].bias.add_(1)
    method.after_step(now)
    assert method.view_loss.centering.center.abs().sum() > 0
    assert method.region_loss.centering.center.abs().sum() > 0
    moved = method.teacher.backbone.patches[0].bias - method.student.backbone.patches[0].bias
    torch.testing.assert_close(moved, torch.full((4,), -now.ema_momentum, dtype=torch.float64))
    method.start_step()
    method.losses(Views(torch.randn(2, 3, 1, 16, 16, dtype=torch.float64)), now)
    assert method.features().shape == (6, 4)


def test_the_student_sees_all_views_and_the_teacher_the_global_ones():
    method, now = dino(region_weight=0), dino().schedule(1, 1).at(0)
    seen = {"student": [], "teacher": []}
    for name in seen:
        network = getattr(method, name)
        network.register_forward_pre_hook(
            lambda _, crops, name=name: seen[name].append([tuple(c.shape) for c in crops[0]])
        )
    views = Views(torch.zeros(2, 4, 1, 16, 16).double(), (torch.zeros(3, 4, 1, 8, 8).double(),))
    method.losses(views, now)
    assert seen == {"student": [[(2, 4, 1, 16, 16), (3, 4, 1, 8, 8)]], "teacher": [[(2, 4, 1, 16, 16)]]}


def test_values_of_a_step():
    options = DINOOptions(
        ema_momentum=0.99, teacher_temp=0.07, warmup_teacher_temp=0.04, warmup_teacher_temp_epochs=3,
        freeze_last_layer_epochs=1, out_dim=4,
    )  # fmt: skip
    schedule = DINO(DroppingBackbone(), options).schedule(4, 5)
    assert schedule.at(0) == pytest.approx((0.99, 0.04, True), abs=1e-15)
    assert schedule.at(4).freeze_last_layer
    assert (schedule.at(5).teacher_temp, schedule.at(5).freeze_last_layer) == (pytest.approx(0.055), False)
    assert schedule.at(19).ema_momentum == pytest.approx(1 - 0.005 * (1 + math.cos(math.pi * 19 / 20)), rel=1e-12)
    assert schedule.at(19).teacher_temp == 0.07
    assert [type(value) for value in schedule.at(0)] == [float, float, bool]  # so that they can be logged as JSON


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"view_weight": 0, "region_weight": 0}, "both 0"),
        ({"centering": "sinkhorn", "center_momentum": 0.8}, "center_momentum=0.8 does nothing with centering=sinkhorn"),
        ({"warmup_teacher_temp": 0.03}, "only work together"),
        ({"warmup_teacher_temp_epochs": 3}, "only work together"),
        ({"mixup": 0.8}, "mixup=0.8 is of the view loss alone"),
    ],
)
def test_options_that_do_nothing_are_refused(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        DINOOptions(**options)


def test_images_that_are_not_finite_are_found_each_by_itself():
    method = dino()
    views = Views(torch.randn(2, 5, 1, 16, 16, dtype=torch.float64), (torch.randn(1, 5, 1, 8, 8, dtype=torch.float64),))
    views.local_crops[0][0, 3] = math.nan
    views.global_crops[1, 1, 0, 4, 4] = math.inf
    assert method.finite_images(views).tolist() == [True, False, True, False, True]
    assert all(module.training for module in method.modules())


def test_golden_esvit_loss(golden):
    data = np.load(golden / "esvit_loss.npz", allow_pickle=False)
    n_images, n_global, n_local = (int(data[key]) for key in ("batch_size", "n_global", "n_local"))
    student_tokens = [int(data["tokens_global"])] * n_global + [int(data["tokens_local"])] * n_local
    out_dim = data["student_cls"].shape[-1]
    momentum, student_temp = float(data["center_momentum"]), float(data["student_temp"])
    method = dino(out_dim=out_dim, center_momentum=momentum, student_temp=student_temp)

    def assert_equal(actual, key: str) -> None:
        np.testing.assert_allclose(actual, data[key][step].squeeze(), rtol=0, atol=1e-10)

    def leaf(key: str) -> torch.Tensor:
        return torch.from_numpy(data[key][step]).double().requires_grad_()

    for step, epoch in enumerate(data["epochs"]):
        assert_equal(method.view_loss.centering.center, "center_before")
        assert_equal(method.region_loss.centering.center, "center_grid_before")
        cls, region, features = leaf("student_cls"), leaf("student_region"), leaf("student_fea")
        student = output_from_rows(cls, region, features, n_tokens=student_tokens, n_images=n_images)
        teacher_rows = [leaf(f"teacher_{key}").detach() for key in ("cls", "region", "fea")]
        target = output_from_rows(*teacher_rows, n_tokens=student_tokens[:n_global], n_images=n_images)
        losses = method.compare(student, target, float(data["temp_schedule"][epoch]))
        losses["total"].backward()
        method.update_centers([target])

        assert_equal(losses["total"].item(), "loss")
        assert_equal(losses["view_loss"].item(), "view_loss")
        assert_equal(losses["region_loss"].item(), "region_loss")
        assert_equal(cls.grad, "grad_student_cls")
        assert_equal(region.grad, "grad_student_region")
        assert features.grad is None
        assert_equal(method.view_loss.centering.center, "center_after")
        assert_equal(method.region_loss.centering.center, "center_grid_after")
        for t in range(n_global):
            match = [match_regions(regions[0], target.regions[t][0]).numpy() for regions in student.regions]
            np.testing.assert_array_equal(match[1 - t], data["match_global"][step, t])
            np.testing.assert_array_equal(np.stack(match[n_global:]), data["match_local"][step, t])


def student() -> Network:
    torch.manual_seed(0)
    return Network(DroppingBackbone(), ProjectionHead(4, 6, 5, 3), ProjectionHead(4, 6, 5, 3)).double()


def test_teacher_is_an_exact_copy_of_its_own():
    net = student()
    teacher = make_teacher(net)
    for name, value in net.state_dict().items():
        assert torch.equal(teacher.state_dict()[name], value)
    with torch.no_grad():
        net.backbone.patches[0].weight.add_(1)
    assert not torch.equal(teacher.backbone.patches[0].weight, net.backbone.patches[0].weight)
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(p.requires_grad for p in net.parameters())


def test_teacher_drops_no_path_and_keeps_batch_statistics():
    net = student()
    teacher = make_teacher(net.eval())
    assert all(module.training for module in teacher.modules())
    crops = [torch.randn(2, 16, 1, 16, 16, dtype=torch.float64)]
    torch.testing.assert_close(teacher(crops).view_logits, teacher(crops).view_logits, rtol=0, atol=0)
    assert teacher.backbone.patches[1].num_batches_tracked == 2
    assert net.backbone.drop_path.drop_prob == 0.5
    first, second = (net.train()(crops).view_logits for _ in range(2))
    assert not torch.equal(first, second)


def test_ema_by_small_numbers():
    teacher, net = nn.Linear(1, 1), nn.Linear(1, 1)
    nn.init.constant_(teacher.weight, 1.0), nn.init.constant_(net.weight, 3.0)
    update_teacher(teacher, net, momentum=0.75)
    assert teacher.weight.item() == 1.5
    update_teacher(teacher, net, momentum=1.0)
    assert teacher.weight.item() == 1.5
    update_teacher(teacher, net, momentum=0.0)
    assert teacher.weight.item() == 3.0


def test_ema_leaves_buffers_alone():
    net = student()
    teacher = make_teacher(net)
    net.backbone.patches[1].running_mean.fill_(5.0)
    update_teacher(teacher, net, momentum=0.0)
    assert not teacher.backbone.patches[1].running_mean.any()


def test_golden_ema(golden):
    data = np.load(golden / "ema.npz", allow_pickle=False)

    def net() -> nn.Module:
        return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3)).double()

    teacher, follower = net(), net()
    teacher.load_state_dict({name: torch.from_numpy(data[f"teacher_init/{name}"]) for name in teacher.state_dict()})
    names = [name for name, _ in teacher.named_parameters()]
    for name, _ in follower.named_buffers():
        follower.get_buffer(name).copy_(torch.from_numpy(data[f"student_buffer_final/{name}"]))
    for step, momentum in enumerate(data["momentum"]):
        with torch.no_grad():
            for name in names:
                follower.get_parameter(name).copy_(torch.from_numpy(data[f"student/{name}"][step]))
        update_teacher(teacher, follower, float(momentum))
        for name in names:
            actual = teacher.get_parameter(name).detach()
            np.testing.assert_allclose(actual, data[f"teacher_after/{name}"][step], rtol=0, atol=1e-12)
    for name, buffer in teacher.named_buffers():
        np.testing.assert_array_equal(buffer, data[f"teacher_buffer_final/{name}"])


def test_frozen_last_layer_neither_steps_nor_decays():
    module = headed_module()
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    optimizer = adamw(module)
    for freeze in (False, True):  # with Adam's momentum already there
        set_hyperparameters(optimizer, lr=0.1, weight_decay=0.5)
        module(torch.randn(8, 1, 3, 3, dtype=torch.float64)).square().sum().backward()
        if freeze:
            freeze_last_layer(module)
        before = {name: p.detach().clone() for name, p in module.named_parameters()}
        optimizer.step()
        optimizer.zero_grad()
    still = {name for name, p in module.named_parameters() if torch.equal(p, before[name])}
    assert still == {"3.last_layer.parametrizations.weight.original0", "3.last_layer.parametrizations.weight.original1"}


def headed_module() -> nn.Module:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), ProjectionHead(4, 6, 5, 3))
    return module.double()


def test_golden_freeze(golden):
    """Of the reference's parameters, by their names, the same lose their gradients."""
    data = np.load(golden / "optim.npz", allow_pickle=False)
    named = {}
    for name, shape in zip(data["names"], data["shapes"], strict=True):
        named[str(name)] = nn.Parameter(torch.zeros(json.loads(str(shape)), dtype=torch.float64))
        if f"grad_in/{name}" in data:
            named[str(name)].grad = torch.from_numpy(data[f"grad_in/{name}"])
    module = Named(named)

    def has_gradient() -> list[bool]:
        return [p.grad is not None for p in module.named.values()]

    assert has_gradient() == data["has_grad_at_epoch_eq_freeze"].tolist()
    freeze_last_layer(module)
    assert has_gradient() == data["has_grad_at_epoch_before_freeze"].tolist()
