import math

import numpy as np
import pytest
import torch

from ssl_lens.errors import InputError
from ssl_lens.losses.center import Centering, SinkhornKnopp
from ssl_lens.losses.view import ViewLoss
from ssl_lens.schedules import teacher_temperature

TEMPERATURE = ("warmup_teacher_temp", "teacher_temp", "warmup_teacher_temp_epochs", "nepochs")  # in golden files


def logits(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_definition(student, teacher, center, student_temp, teacher_temp) -> float:
    """The docstring of ViewLoss as scalar loops."""
    pair_means = []
    for t in range(len(teacher)):
        for s in range(len(student)):
            if s == t:
                continue
            entropies = []
            for b in range(teacher.shape[1]):
                p = [math.exp((x - c) / teacher_temp) for x, c in zip(teacher[t, b].tolist(), center, strict=True)]
                q = [math.exp(x / student_temp) for x in student[s, b].tolist()]
                entropies.append(-sum(pk / sum(p) * math.log(qk / sum(q)) for pk, qk in zip(p, q, strict=True)))
            pair_means.append(sum(entropies) / len(entropies))
    return sum(pair_means) / len(pair_means)


@pytest.mark.parametrize(("n_student", "n_teacher"), [(6, 2), (2, 2), (4, 3), (5, 1)])
def test_view_loss_is_its_definition(n_student, n_teacher):
    loss = ViewLoss(Centering(7).double(), student_temp=0.1)
    student, teacher = logits(n_student, 4, 7), logits(n_teacher, 4, 7, seed=1)
    loss.update_center(logits(n_teacher, 4, 7, seed=2))
    expected = by_definition(student, teacher, loss.centering.center.tolist(), 0.1, 0.2)
    assert loss(student, teacher, teacher_temp=0.2).item() == pytest.approx(expected, rel=1e-12)


def test_uniform_networks_cost_log_k():
    loss = ViewLoss(Centering(50))
    assert loss(torch.ones(4, 3, 50), torch.ones(2, 3, 50), teacher_temp=0.04).item() == pytest.approx(math.log(50))


@pytest.mark.parametrize("centering", [Centering(7).double(), SinkhornKnopp()])
def test_gradient_is_student_minus_teacher_and_stays_out_of_the_teacher(centering):
    """Two views: d loss / d logits of view 1 = (softmax(view 1) - p_0) / (temp * images * pairs)."""
    student, teacher = logits(2, 5, 7).requires_grad_(), logits(2, 5, 7, seed=1).requires_grad_()
    ViewLoss(centering)(student, teacher, teacher_temp=0.1).backward()
    p = centering.targets(teacher.detach(), 0.1)
    expected = ((student.detach() / 0.1).softmax(dim=-1) - p.flip(0)) / (0.1 * 5 * 2)
    torch.testing.assert_close(student.grad, expected, rtol=0, atol=1e-14)
    assert teacher.grad is None


def test_a_single_view_has_no_pair():
    with pytest.raises(InputError, match="no pair"):
        ViewLoss(Centering(7))(torch.zeros(1, 2, 7), torch.zeros(1, 2, 7), teacher_temp=0.04)


def test_loss_is_float32_under_autocast():
    student, teacher = logits(4, 3, 7).bfloat16(), logits(2, 3, 7, seed=1).bfloat16()
    loss = ViewLoss(Centering(7))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = loss(student, teacher, teacher_temp=0.04)
    assert actual.dtype == torch.float32
    assert actual.item() == loss(student.float(), teacher.float(), teacher_temp=0.04).item()


@pytest.mark.parametrize("name", ["dino_loss", "dino_loss_nolocal"])
def test_golden_dino_loss(golden, name):
    data = np.load(golden / f"{name}.npz", allow_pickle=False)
    student, teacher = (torch.from_numpy(data[key]).double() for key in ("student_out", "teacher_out"))
    out_dim, batch_size = student.shape[-1], int(data["batch_size"])
    loss = ViewLoss(Centering(out_dim, float(data["center_momentum"])).double(), float(data["student_temp"]))
    for step, epoch in enumerate(data["epochs"]):
        np.testing.assert_allclose(loss.centering.center, data["center_before"][step, 0], rtol=0, atol=1e-10)
        student_out = student[step].clone().requires_grad_()
        teacher_out = teacher[step].view(-1, batch_size, out_dim)
        temp = float(data["temp_schedule"][epoch])
        value = loss(student_out.view(-1, batch_size, out_dim), teacher_out, teacher_temp=temp)
        value.backward()
        loss.update_center(teacher_out)
        np.testing.assert_allclose(value.item(), data["loss"][step], rtol=0, atol=1e-10)
        np.testing.assert_allclose(student_out.grad, data["grad_student"][step], rtol=0, atol=1e-10)
        np.testing.assert_allclose(loss.centering.center, data["center_after"][step, 0], rtol=0, atol=1e-10)


def test_golden_view_mixup(golden):
    data = np.load(golden / "esvit_view_mixup.npz", allow_pickle=False)
    n_images, momentum = int(data["batch_size"]), float(data["center_momentum"])
    loss = ViewLoss(Centering(data["student_out"].shape[-1], momentum), float(data["student_temp"])).double()
    warm, final, warmup, epochs = (data[key] for key in TEMPERATURE)
    temps = teacher_temperature(float(warm), float(final), int(warmup), int(epochs))
    for step, epoch in enumerate(data["epochs"]):
        student = torch.from_numpy(data["student_out"][step]).double().requires_grad_()
        teacher = torch.from_numpy(data["teacher_out"][step]).double().unflatten(0, (-1, n_images))
        mixing = torch.from_numpy(data["targets"][step]).double()
        temp = temps[epoch]
        value = loss(student.unflatten(0, (-1, n_images)), teacher, teacher_temp=temp, mixing=mixing)
        value.backward()
        loss.update_center(teacher)
        np.testing.assert_allclose(value.item(), data["loss"][step], rtol=0, atol=1e-10)
        np.testing.assert_allclose(student.grad, data["grad_student"][step], rtol=0, atol=1e-10)
        np.testing.assert_allclose(loss.centering.center, data["center_after"][step].squeeze(), rtol=0, atol=1e-10)


def test_unmixed_images_have_the_plain_loss():
    loss, student, teacher = ViewLoss(Centering(7).double()), logits(4, 3, 7), logits(2, 3, 7, seed=1)
    mixing = torch.eye(3, dtype=torch.float64).expand(4, 3, 3)
    mixed = loss(student, teacher, teacher_temp=0.2, mixing=mixing)
    assert mixed.item() == pytest.approx(loss(student, teacher, teacher_temp=0.2).item(), rel=1e-13)
