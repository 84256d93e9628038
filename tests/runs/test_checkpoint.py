"""Checkpoints: exact, whole or absent, of this network or refused."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import nn

from ssl_lens.errors import InputError
from ssl_lens.runs import checkpoint


class Pair(nn.Module):
    """A trained network and the one that is kept, both with running statistics."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.student = nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))
        self.teacher = nn.ModuleDict({"backbone": nn.Linear(2, width), "head": nn.BatchNorm1d(width)})


class State(NamedTuple):
    method: Pair
    optimizer: torch.optim.Optimizer


def trained(width: int = 3, seed: int = 0) -> State:
    """A net with momenta: two steps of AdamW were taken."""
    torch.manual_seed(seed)
    method = Pair(width)
    optimizer = torch.optim.AdamW(method.student.parameters(), lr=0.1)
    for _ in range(2):
        method.student(torch.randn(4, 2)).pow(3).sum().backward()
        optimizer.step()
    return State(method, optimizer)


def save(folder: Path, state: State, *, step: int, keep: int) -> Path:
    kept = state.method.teacher["backbone"]
    return checkpoint.save(folder, state.method, state.optimizer, None, backbone=kept, step=step, keep=keep)


def test_everything_comes_back_exactly(tmp_path: Path) -> None:
    saved, other = trained(), trained(seed=1)
    path = save(tmp_path, saved, step=7, keep=1)
    assert checkpoint.load(path, other.method, other.optimizer, None) == 7
    for key, value in saved.method.state_dict().items():
        assert torch.equal(other.method.state_dict()[key], value), key
    for (_, ours), (_, theirs) in zip(saved.optimizer.state.items(), other.optimizer.state.items(), strict=True):
        assert all(torch.equal(ours[key], theirs[key]) for key in ("step", "exp_avg", "exp_avg_sq"))


def test_the_backbone_that_is_kept_is_found_without_its_method(tmp_path: Path) -> None:
    saved = trained()
    weights = checkpoint.backbone_weights(save(tmp_path, saved, step=1, keep=1))
    assert weights.keys() == {"weight", "bias"}
    assert torch.equal(weights["weight"], saved.method.teacher["backbone"].weight)


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 10, 300):
        save(tmp_path, trained(), step=step, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_00000010", "step_00000300"]
    assert checkpoint.newest_good(tmp_path) == tmp_path / "step_00000300"


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove file", "no checksums"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    for step in (1, 2):
        save(tmp_path, trained(), step=step, keep=2)
    file = tmp_path / "step_00000002" / ("checksums.json" if damage == "no checksums" else "method.safetensors")
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
    save(tmp_path, trained(), step=1, keep=2)

    def full_disk(*arguments: object) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full_disk)
        with pytest.raises(OSError, match="No space"):
            save(tmp_path, trained(), step=2, keep=2)
    assert checkpoint.newest_good(tmp_path) == tmp_path / "step_00000001"
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001"]  # the rest is gone
    save(tmp_path, trained(), step=2, keep=2)
    assert checkpoint.newest_good(tmp_path) == tmp_path / "step_00000002"


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert checkpoint.newest_good(tmp_path / "absent") is None


def test_the_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    path, other = save(tmp_path, trained(width=3), step=1, keep=1), trained(width=4)
    with pytest.raises(InputError, match=r"another network: 0 keys missing, 0 unknown, 12 of another shape"):
        checkpoint.load(path, other.method, other.optimizer, None)


def test_files_are_readable_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        path = save(tmp_path, trained(), step=1, keep=1)
    finally:
        os.umask(before)
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in path.iterdir()} == dict.fromkeys(
        ("method.safetensors", "optimizer.pt", "state.json", "checksums.json"), "0o640"
    )


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom ssl_lens.files import whole_folder\n"
        "with whole_folder(Path(sys.argv[1], 'step_00000001')) as made:\n"
        "    (made / 'method.safetensors').write_bytes(b'half')\n    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    save(tmp_path, trained(), step=2, keep=2)
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000002"]
