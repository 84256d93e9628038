import numpy as np
import pytest
import torch
from rows import output_from_rows

from ssl_lens.losses.center import Centering, SinkhornKnopp
from ssl_lens.losses.region import RegionLoss, match_regions
from ssl_lens.losses.view import ViewLoss
from ssl_lens.methods.criterion import Criterion
from ssl_lens.methods.network import Output


def random_output(n_tokens: list[int], seed: int, n_images: int = 4, out_dim: int = 6) -> Output:
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    return Output(
        randn(len(n_tokens), n_images, 5),
        randn(len(n_tokens), n_images, out_dim),
        tuple(randn(n_images, n, out_dim) for n in n_tokens),
        tuple(randn(n_images, n, 5) for n in n_tokens),
    )


def centered(out_dim: int = 6, **weights: float) -> Criterion:
    return Criterion(ViewLoss(Centering(out_dim)), RegionLoss(Centering(out_dim)), **weights).double()


def images(output: Output, chosen: slice) -> Output:
    return Output(
        output.view_features[:, chosen],
        output.view_logits[:, chosen],
        tuple(part[chosen] for part in output.region_logits),
        tuple(part[chosen] for part in output.regions),
    )


def test_total_is_the_weighted_sum():
    student, target = random_output([9, 9, 4], seed=0), random_output([9, 9], seed=1)
    losses = centered(view_weight=0.3, region_weight=0.7)(student, target, teacher_temp=0.05)
    assert losses.total.item() == pytest.approx(0.3 * losses.view.item() + 0.7 * losses.region.item(), rel=1e-14)
    halves = centered()(student, target, teacher_temp=0.05)
    assert halves.total.item() == pytest.approx((losses.view.item() + losses.region.item()) / 2, rel=1e-14)


def test_without_region_loss_it_is_dino():
    student, target = random_output([9, 9, 4], seed=0), random_output([9, 9], seed=1)
    view_loss = ViewLoss(Centering(6)).double()
    expected = view_loss(student.view_logits, target.view_logits, teacher_temp=0.05)
    criterion = Criterion(view_loss)
    student, target = (output._replace(region_logits=None, regions=None) for output in (student, target))
    losses = criterion(student, target, teacher_temp=0.05)
    assert losses.total.item() == losses.view.item() == expected.item()
    assert losses.region is None
    criterion.update_center([target])
    assert view_loss.centering.center.abs().sum() > 0


def test_the_two_centers_are_separate_and_saved():
    criterion, target = centered(), random_output([9, 9], seed=0)
    criterion.update_center([target])
    state = criterion.state_dict()
    assert set(state) == {"view_loss.centering.center", "region_loss.centering.center"}
    torch.testing.assert_close(state["view_loss.centering.center"], 0.1 * target.view_logits.mean(dim=(0, 1)))
    rows = torch.cat(target.region_logits, dim=1).flatten(0, 1)
    torch.testing.assert_close(state["region_loss.centering.center"], 0.1 * rows.mean(dim=0))


def test_accumulated_outputs_move_the_center_as_one_batch():
    whole, parts, target = centered(), centered(), random_output([9, 9], seed=0)
    whole.update_center([target])
    parts.update_center([images(target, slice(0, 1)), images(target, slice(1, 4))])
    for name, center in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], center, rtol=0, atol=1e-15)


def test_accumulated_losses_are_the_loss_of_one_batch():
    criterion, student, target = centered(), random_output([9, 9, 4], seed=0), random_output([9, 9], seed=1)
    whole = criterion(student, target, teacher_temp=0.05).total.item()
    halves = [
        criterion(images(student, part), images(target, part), teacher_temp=0.05).total.item()
        for part in (slice(0, 2), slice(2, 4))
    ]
    assert sum(halves) / 2 == pytest.approx(whole, rel=1e-13)


def test_sinkhorn_has_no_center_to_update():
    criterion = Criterion(ViewLoss(SinkhornKnopp()), RegionLoss(SinkhornKnopp()))
    criterion.update_center([random_output([9, 9], seed=0)])
    assert not criterion.state_dict()


def test_golden_esvit_loss(golden):
    data = np.load(golden / "esvit_loss.npz", allow_pickle=False)
    n_images, n_global, n_local = (int(data[key]) for key in ("batch_size", "n_global", "n_local"))
    student_tokens = [int(data["tokens_global"])] * n_global + [int(data["tokens_local"])] * n_local
    out_dim = data["student_cls"].shape[-1]
    momentum, student_temp = float(data["center_momentum"]), float(data["student_temp"])
    criterion = Criterion(
        ViewLoss(Centering(out_dim, momentum), student_temp), RegionLoss(Centering(out_dim, momentum), student_temp)
    ).double()

    def assert_equal(actual, key: str) -> None:
        np.testing.assert_allclose(actual, data[key][step].squeeze(), rtol=0, atol=1e-10)

    def leaf(key: str) -> torch.Tensor:
        return torch.from_numpy(data[key][step]).double().requires_grad_()

    for step, epoch in enumerate(data["epochs"]):
        assert_equal(criterion.view_loss.centering.center, "center_before")
        assert_equal(criterion.region_loss.centering.center, "center_grid_before")
        cls, region, features = leaf("student_cls"), leaf("student_region"), leaf("student_fea")
        student = output_from_rows(cls, region, features, n_tokens=student_tokens, n_images=n_images)
        teacher_rows = [leaf(f"teacher_{key}").detach() for key in ("cls", "region", "fea")]
        target = output_from_rows(*teacher_rows, n_tokens=student_tokens[:n_global], n_images=n_images)
        losses = criterion(student, target, teacher_temp=float(data["temp_schedule"][epoch]))
        losses.total.backward()
        criterion.update_center([target])

        assert_equal(losses.total.item(), "loss")
        assert_equal(losses.view.item(), "view_loss")
        assert_equal(losses.region.item(), "region_loss")
        assert_equal(cls.grad, "grad_student_cls")
        assert_equal(region.grad, "grad_student_region")
        assert features.grad is None
        assert_equal(criterion.view_loss.centering.center, "center_after")
        assert_equal(criterion.region_loss.centering.center, "center_grid_after")
        for t in range(n_global):
            match = [match_regions(regions, target.regions[t]).numpy() for regions in student.regions]
            np.testing.assert_array_equal(match[1 - t], data["match_global"][step, t])
            np.testing.assert_array_equal(np.stack(match[n_global:]), data["match_local"][step, t])
