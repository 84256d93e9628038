import math

import pytest
import torch
from kept import kept_bytes

from ssl_lens.errors import InputError
from ssl_lens.losses.center import Centering, SinkhornKnopp
from ssl_lens.losses.region import RegionLoss, match_regions


def per_view(n_tokens: list[int], width: int, seed: int, n_images: int = 2) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(1, n_images, n, width, dtype=torch.float64, generator=generator) for n in n_tokens)


def by_definition(student_logits, student_regions, teacher_logits, teacher_regions, center, teacher_temp) -> float:
    """The docstring of RegionLoss as scalar loops, student_temp 0.1."""
    student_logits, student_regions, teacher_logits, teacher_regions = (
        [view for part in parts for view in part]
        for parts in (student_logits, student_regions, teacher_logits, teacher_regions)
    )
    pair_means = []
    for t in range(len(teacher_logits)):
        for s in range(len(student_logits)):
            if s == t:
                continue
            image_means = []
            for b in range(len(teacher_logits[t])):
                entropies = []
                for region, row in zip(student_regions[s][b], student_logits[s][b], strict=True):
                    cosines = [
                        (region @ other / region.norm() / other.norm()).item() for other in teacher_regions[t][b]
                    ]
                    j = cosines.index(max(cosines))
                    p = ((teacher_logits[t][b, j] - center) / teacher_temp).softmax(dim=-1)
                    log_q = torch.log_softmax(row / 0.1, dim=-1)
                    entropies.append(-(p @ log_q).item())
                image_means.append(sum(entropies) / len(entropies))
            pair_means.append(sum(image_means) / len(image_means))
    return sum(pair_means) / len(pair_means)


@pytest.mark.parametrize(
    ("student_tokens", "n_teacher"),
    [([9, 9, 4, 4], 2), ([9, 9], 2), ([9, 9, 9, 4, 6, 1], 3), ([6, 9, 4], 2), ([9, 4], 1)],
)
def test_region_loss_is_its_definition(student_tokens, n_teacher):
    """Local crops of none, one or several resolutions; teacher views of different sizes too."""
    student = per_view(student_tokens, 8, seed=0), per_view(student_tokens, 5, seed=1)
    teacher = per_view(student_tokens[:n_teacher], 8, seed=2), per_view(student_tokens[:n_teacher], 5, seed=3)
    loss = RegionLoss(Centering(8).double())
    loss.update_center(per_view([3], 8, seed=4))
    expected = by_definition(*student, *teacher, loss.centering.center, 0.2)
    assert loss(*student, *teacher, teacher_temp=0.2).item() == pytest.approx(expected, rel=1e-12)


def test_matching_finds_a_permutation():
    regions = per_view([9], 5, seed=0, n_images=3)[0][0]
    order = torch.stack([torch.randperm(9, generator=torch.Generator().manual_seed(b)) for b in range(3)])
    shuffled = 7 * regions[torch.arange(3)[:, None], order]
    assert torch.equal(match_regions(shuffled, regions), order)


def test_matching_ignores_length():
    student, teacher = torch.tensor([[[1.0, 0.1]]]), torch.tensor([[[0.1, 100.0], [0.5, 0.0], [3.0, 3.0]]])
    assert match_regions(student, teacher).item() == 1


def test_uniform_networks_cost_log_k():
    ones = tuple(torch.ones(1, 2, n, 40) for n in (9, 9, 4))
    regions = tuple(part.float() for part in per_view([9, 9, 4], 5, seed=0))
    loss = RegionLoss(Centering(40))
    assert loss(ones, regions, ones[:2], regions[:2], teacher_temp=0.04).item() == pytest.approx(math.log(40))


@pytest.mark.parametrize("centering", [Centering(8).double(), SinkhornKnopp()])
def test_only_the_student_logits_get_a_gradient(centering):
    tokens = [9, 9, 4]
    student_logits, student_regions = per_view(tokens, 8, seed=0), per_view(tokens, 5, seed=1)
    teacher_logits, teacher_regions = per_view(tokens[:2], 8, seed=2), per_view(tokens[:2], 5, seed=3)
    for tensor in (*student_logits, *student_regions, *teacher_logits, *teacher_regions):
        tensor.requires_grad_()
    RegionLoss(centering)(
        student_logits, student_regions, teacher_logits, teacher_regions, teacher_temp=0.04
    ).backward()
    for logits in student_logits:
        # Softmax does not see a constant added to its logits.
        torch.testing.assert_close(logits.grad.sum(dim=-1), torch.zeros_like(logits[..., 0]), rtol=0, atol=1e-14)
        assert logits.grad.abs().sum() > 0.1
    assert all(tensor.grad is None for tensor in (*student_regions, *teacher_logits, *teacher_regions))


def test_a_small_crop_weighs_as_much_as_a_large_one():
    """Repeating each region of a crop changes nothing."""
    logits, regions = per_view([9, 9, 4], 8, seed=0), per_view([9, 9, 4], 5, seed=1)
    loss = RegionLoss(Centering(8).double())
    once = loss(logits, regions, logits[:2], regions[:2], teacher_temp=0.1)
    repeated = [tuple(x if v < 2 else x.repeat(1, 1, 5, 1) for v, x in enumerate(parts)) for parts in (logits, regions)]
    assert loss(*repeated, logits[:2], regions[:2], teacher_temp=0.1).item() == pytest.approx(once.item(), rel=1e-14)


def test_sinkhorn_spreads_over_all_teacher_regions_together():
    logits, regions = per_view([9, 9], 8, seed=0), per_view([9, 9], 5, seed=1)
    rows = torch.cat([part.flatten(0, 2) for part in logits])
    targets = SinkhornKnopp().targets(rows, 0.1).view(2, 2, 9, 8)
    expected = 0.0
    for s, t in ((0, 1), (1, 0)):
        matched = targets[t][torch.arange(2)[:, None], match_regions(regions[s][0], regions[t][0])]
        expected -= (matched * (logits[s][0] / 0.1).log_softmax(dim=-1)).sum(dim=-1).mean() / 2
    actual = RegionLoss(SinkhornKnopp())(logits, regions, logits, regions, teacher_temp=0.1)
    assert actual.item() == pytest.approx(expected.item(), rel=1e-13)


@pytest.mark.parametrize("centering", [Centering(8).double(), SinkhornKnopp()])
def test_some_images_at_a_time_are_as_good_as_all_at_once(centering, monkeypatch):
    """One image at a time, and targets one row at a time; resolutions of two views and of three."""
    student, teacher = [], []
    for views, n_tokens in ((2, 9), (3, 4)):
        student.append([torch.cat(per_view([n_tokens] * views, width, seed=n_tokens + width)) for width in (8, 5)])
    teacher = [torch.cat(per_view([9, 9], width, seed=width)) for width in (8, 5)]
    logits, regions = zip(*student, strict=True)
    results = []
    for at_once in (2**20, 1):
        for module in ("center", "region"):
            monkeypatch.setattr(f"ssl_lens.losses.{module}.NUMBERS_AT_ONCE", at_once)
        leaves = [part.clone().requires_grad_() for part in logits]
        value = RegionLoss(centering)(leaves, regions, [teacher[0]], [teacher[1]], teacher_temp=0.1)
        results.append([value, *torch.autograd.grad(value, leaves)])
    for whole, parts in zip(*results, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-14)
    one_by_one = [
        [view[None] for part in parts for view in part] for parts in (logits, regions, *([t] for t in teacher))
    ]
    assert RegionLoss(centering)(*one_by_one, teacher_temp=0.1).item() == pytest.approx(results[0][0].item(), rel=1e-12)


def test_logits_are_all_that_is_kept():
    logits = [torch.randn(1, 2, n, 8, dtype=torch.bfloat16, requires_grad=True) for n in (9, 9, 4)]
    regions = [torch.randn(1, 2, n, 5) for n in (9, 9, 4)]
    loss = RegionLoss(SinkhornKnopp())
    kept = kept_bytes(lambda: loss(logits, regions, logits[:2], regions[:2], teacher_temp=0.1), besides=logits)
    assert set(kept) == {torch.float32, torch.int64}  # the shift of the targets, and who is matched to whom
    assert kept[torch.float32] == 4 * 8


def test_loss_is_float32_under_autocast():
    logits = tuple(part.bfloat16() for part in per_view([9, 9, 4], 8, seed=0))
    regions = tuple(part.bfloat16() for part in per_view([9, 9, 4], 5, seed=1))
    wide_logits, wide_regions = (tuple(part.float() for part in parts) for parts in (logits, regions))
    loss = RegionLoss(Centering(8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = loss(logits, regions, logits[:2], regions[:2], teacher_temp=0.04)
    assert actual.dtype == torch.float32
    assert actual.item() == loss(wide_logits, wide_regions, wide_logits[:2], wide_regions[:2], teacher_temp=0.04).item()


def test_a_single_view_has_no_pair():
    logits, regions = per_view([9], 8, seed=0), per_view([9], 5, seed=1)
    with pytest.raises(InputError, match="no pair"):
        RegionLoss(Centering(8))(logits, regions, logits, regions, teacher_temp=0.04)
