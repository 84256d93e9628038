"""Two gloo processes give what one gives: targets, centres, and the reference's losses on two ranks."""

from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from rows import output_from_rows

from ssl_lens.losses.center import Centering, SinkhornKnopp
from ssl_lens.losses.region import RegionLoss
from ssl_lens.losses.view import ViewLoss

N_RANKS = 2
ROWS_PER_RANK = (5, 3)


def rows() -> torch.Tensor:
    return torch.randn(sum(ROWS_PER_RANK), 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def join(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=N_RANKS)


def center_and_partition(rank: int, folder: Path) -> None:
    join(rank, folder)
    mine = rows().split(ROWS_PER_RANK)[rank]
    centering = Centering(6, momentum=0.9).double()
    centering.update([mine[:1], mine[1:]])
    targets = SinkhornKnopp().targets(mine, 0.1)
    np.savez(folder / f"rank{rank}.npz", center=centering.center, targets=targets)
    dist.destroy_process_group()


def test_two_ranks_equal_one_process(tmp_path):
    """Exact even where one rank holds more rows than the other."""
    mp.spawn(center_and_partition, args=(tmp_path,), nprocs=N_RANKS)
    results = [np.load(tmp_path / f"rank{rank}.npz") for rank in range(N_RANKS)]
    alone = Centering(6, momentum=0.9).double()
    alone.update([rows()])
    for result in results:
        np.testing.assert_allclose(result["center"], alone.center, rtol=0, atol=1e-10)
    targets = np.concatenate([result["targets"] for result in results])
    np.testing.assert_allclose(targets, SinkhornKnopp().targets(rows(), 0.1), rtol=0, atol=1e-10)


def golden_steps(rank: int, folder: Path, golden_file: Path) -> None:
    join(rank, folder)
    data = np.load(golden_file, allow_pickle=False)
    n_images, n_local, out_dim = (int(value) for value in data["cfg"][:3])
    student_temp, momentum, warm, final, warmup_epochs = data["cfg"][4:9].tolist()
    temps = np.append(np.linspace(warm, final, int(warmup_epochs)), final)
    tokens = [int(data["npatch"][0])] * 2 + [int(data["npatch"][1])] * n_local
    view_loss = ViewLoss(Centering(out_dim, momentum), student_temp).double()
    region_loss = RegionLoss(Centering(out_dim, momentum), student_temp).double()

    for step, epoch in enumerate((0, 1, 3)):
        cls, region, features = (
            torch.from_numpy(data[f"student_{part}"][rank, step]).double().requires_grad_()
            for part in ("cls", "region", "fea")
        )
        teacher_rows = [
            torch.from_numpy(data[f"teacher_{part}"][rank, step]).double() for part in ("cls", "region", "fea")
        ]
        student = output_from_rows(cls, region, features, n_tokens=tokens, n_images=n_images)
        target = output_from_rows(*teacher_rows, n_tokens=tokens[:2], n_images=n_images)
        temp = temps[min(epoch, len(temps) - 1)]
        of_views = view_loss(student.view_logits, target.view_logits, teacher_temp=temp)
        of_regions = region_loss(
            student.region_logits, student.regions, target.region_logits, target.regions, teacher_temp=temp
        )
        total = (of_views + of_regions) / 2
        total.backward()
        view_loss.update_center(target.view_logits)
        region_loss.update_center(target.region_logits)
        for actual, key in (
            (total.detach(), "loss"),
            (cls.grad, "grad_student_cls"),
            (region.grad, "grad_student_region"),
            (view_loss.centering.center, "center_after"),
            (region_loss.centering.center, "center_grid_after"),
        ):
            np.testing.assert_allclose(actual, data[key][rank, step].squeeze(), rtol=0, atol=1e-10, err_msg=key)
    dist.destroy_process_group()


def test_golden_esvit_loss_2ranks(golden, tmp_path):
    mp.spawn(golden_steps, args=(tmp_path, golden / "esvit_loss_2ranks.npz"), nprocs=N_RANKS)
