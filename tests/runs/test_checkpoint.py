"""Checkpoints: exact, whole or absent, of this network or refused."""

from pathlib import Path

import pytest
import torch
from torch import nn

from ssl_lens.errors import InputError
from ssl_lens.runs import checkpoint
from ssl_lens.runs.checkpoint import Trainable


def trainable(width: int = 3, seed: int = 0) -> Trainable:
    """A net with momenta: two steps of AdamW were taken."""
    torch.manual_seed(seed)
    student, teacher, criterion = nn.Linear(2, width), nn.Linear(2, width), nn.BatchNorm1d(width)
    optimizer = torch.optim.AdamW(student.parameters(), lr=0.1)
    for _ in range(2):
        student(torch.randn(4, 2)).square().sum().backward()
        optimizer.step()
    return Trainable(student, teacher, criterion, optimizer, None)


def test_everything_comes_back_exactly(tmp_path: Path) -> None:
    saved, other = trainable(), trainable(seed=1)
    checkpoint.save(tmp_path, saved, step=7, keep=1)
    assert checkpoint.load(tmp_path / "step_00000007", other) == 7
    for name, module in saved.modules().items():
        for key, value in module.state_dict().items():
            assert torch.equal(other.modules()[name].state_dict()[key], value), f"{name}.{key}"
    for (_, ours), (_, theirs) in zip(saved.optimizer.state.items(), other.optimizer.state.items(), strict=True):
        assert all(torch.equal(ours[key], theirs[key]) for key in ("step", "exp_avg", "exp_avg_sq"))


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 10, 300):
        checkpoint.save(tmp_path, trainable(), step=step, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_00000010", "step_00000300"]
    assert checkpoint.newest_good(tmp_path) == tmp_path / "step_00000300"


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove file", "no checksums"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    for step in (1, 2):
        checkpoint.save(tmp_path, trainable(), step=step, keep=2)
    file = tmp_path / "step_00000002" / ("checksums.json" if damage == "no checksums" else "teacher.safetensors")
    content = file.read_bytes()
    match damage:
        case "truncate":
            file.write_bytes(content[:-1])
        case "flip":
            file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case _:
            file.unlink()
    assert checkpoint.newest_good(tmp_path) == tmp_path / "step_00000001"
    assert "step_00000002 is damaged" in caplog.text


def test_what_a_crash_left_half_written_is_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path, trainable(), step=1, keep=2)

    def full_disk(*arguments: object) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full_disk)
        with pytest.raises(OSError, match="No space"):
            checkpoint.save(tmp_path, trainable(), step=2, keep=2)
    assert checkpoint.newest_good(tmp_path) == tmp_path / "step_00000001"
    checkpoint.save(tmp_path, trainable(), step=2, keep=2)
    assert checkpoint.newest_good(tmp_path) == tmp_path / "step_00000002"


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert checkpoint.newest_good(tmp_path / "absent") is None


def test_the_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, trainable(width=3), step=1, keep=1)
    with pytest.raises(InputError, match=r"another network: 0 keys missing, 0 unknown, 2 of another shape \(weight"):
        checkpoint.load(path, trainable(width=4))
