import math

import pytest
import torch

from ssl_lens.errors import InputError
from ssl_lens.losses.center import Centering, SinkhornKnopp


def logits(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_centering_by_small_numbers():
    centering = Centering(out_dim=2, momentum=0.9).double()
    centering.update([torch.tensor([[1.0, 0.0], [3.0, 4.0]], dtype=torch.float64)])
    torch.testing.assert_close(centering.center, torch.tensor([0.2, 0.2], dtype=torch.float64))
    centering.update([torch.tensor([[2.0, 0.0]], dtype=torch.float64)])
    torch.testing.assert_close(centering.center, torch.tensor([0.38, 0.18], dtype=torch.float64))

    p = centering.targets(torch.tensor([0.38, 0.18 + 0.5 * math.log(3)], dtype=torch.float64), teacher_temp=0.5)
    torch.testing.assert_close(p, torch.tensor([0.25, 0.75], dtype=torch.float64))


def test_center_of_parts_is_center_of_the_whole():
    whole, parts = Centering(5).double(), Centering(5).double()
    rows = logits(12, 5)
    whole.update([rows])
    parts.update([rows[:3], rows[3:7].view(2, 2, 5), rows[7:]])
    torch.testing.assert_close(parts.center, whole.center, rtol=0, atol=1e-15)


def test_teacher_at_its_center_is_uniform():
    centering = Centering(8, momentum=0.0).double()
    same = logits(8).expand(4, 8)
    centering.update([same])
    torch.testing.assert_close(centering.targets(same, 0.04), torch.full((4, 8), 1 / 8, dtype=torch.float64))


def test_targets_leave_the_logits_alone():
    for centering in (Centering(8).double(), SinkhornKnopp()):
        rows = logits(4, 8)
        before = rows.clone()
        centering.targets(rows, 0.04)
        assert torch.equal(rows, before)


def test_center_is_saved_with_the_loss():
    assert set(Centering(4).state_dict()) == {"center"}
    assert not SinkhornKnopp().state_dict()


def test_wrong_out_dim_is_one_line():
    with pytest.raises(InputError, match=r"teacher gives 6 logits.*out_dim=8"):
        Centering(8).targets(torch.zeros(2, 6), 0.04)


@pytest.mark.parametrize("centering", [Centering(16), SinkhornKnopp()])
def test_half_precision_is_widened(centering):
    rows = logits(4, 3, 16).to(torch.bfloat16)
    targets = centering.targets(rows, 0.04)
    assert targets.dtype == torch.float32
    torch.testing.assert_close(targets, centering.targets(rows.float(), 0.04), rtol=0, atol=0)
    torch.testing.assert_close(targets.sum(dim=-1), torch.ones(4, 3))


def test_sinkhorn_is_the_matrix_scaling_of_swav():
    rows, temp, iterations = logits(6, 4), 0.5, 3
    q = (rows / temp).exp().T
    q /= q.sum()
    for _ in range(iterations):
        q /= q.sum(dim=1, keepdim=True) * q.shape[0]
        q /= q.sum(dim=0, keepdim=True) * q.shape[1]
    expected = (q * q.shape[1]).T
    torch.testing.assert_close(SinkhornKnopp(iterations).targets(rows, temp), expected, rtol=0, atol=1e-14)


def test_sinkhorn_uses_all_prototypes_equally():
    """Rows that all prefer prototype 0 are spread out, which centering at its start does not do."""
    rows = logits(64, 8) + 3 * torch.eye(8, dtype=torch.float64)[0]
    share = SinkhornKnopp(iterations=50).targets(rows, 0.5).mean(dim=0)
    torch.testing.assert_close(share, torch.full((8,), 1 / 8, dtype=torch.float64), rtol=1e-6, atol=0)
    assert Centering(8).double().targets(rows, 0.5).mean(dim=0)[0] > 0.8


def test_sinkhorn_ignores_what_all_rows_share():
    rows = logits(10, 6)
    torch.testing.assert_close(
        SinkhornKnopp().targets(rows + 5 * logits(6, seed=1), 0.1),
        SinkhornKnopp().targets(rows, 0.1),
        rtol=0,
        atol=1e-13,
    )


def test_sinkhorn_survives_extreme_logits():
    rows = (1000 * logits(16, 32)).float()
    targets = SinkhornKnopp().targets(rows, 0.04)
    assert targets.isfinite().all()
    torch.testing.assert_close(targets.sum(dim=-1), torch.ones(16))
