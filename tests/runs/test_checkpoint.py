"""Checkpoints: exact, whole or absent, of this network or refused."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import nn

from ssl_lens.errors import InputError
from ssl_lens.runs import checkpoint

OBSERVED = {"features": torch.arange(6.0).reshape(3, 2)}


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
    return checkpoint.save(
        folder, state.method, state.optimizer, None, backbone=kept, observed=OBSERVED, step=step, keep=keep
    )


def test_everything_comes_back_exactly(tmp_path: Path) -> None:
    saved, other = trained(), trained(seed=1)
    path = save(tmp_path, saved, step=7, keep=1)
    restored = checkpoint.load(path, other.method, other.optimizer, None)
    assert restored.step == 7
    assert torch.equal(restored.observed["features"], OBSERVED["features"])
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
    assert checkpoint.newest_whole(tmp_path) == tmp_path / "step_00000300"


def test_those_that_a_killed_process_kept_too_many_of_are_removed(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, trained(), step=step, keep=3)
    (tmp_path / "step_00000001_best").mkdir()
    checkpoint.prune(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step_00000001_best", "step_00000002", "step_00000003"
    ]  # fmt: skip


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
    assert checkpoint.newest_whole(tmp_path) == tmp_path / "step_00000001"
    assert "step_00000002 is damaged" in caplog.text


def test_what_a_crash_left_half_written_is_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, trained(), step=1, keep=2)

    def full_disk(*arguments: object) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full_disk)
        with pytest.raises(InputError, match="cannot write .*: No space left on device; step_00000001 is whole"):
            save(tmp_path, trained(), step=2, keep=2)
    assert checkpoint.newest_whole(tmp_path) == tmp_path / "step_00000001"
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001"]  # the rest is gone
    save(tmp_path, trained(), step=2, keep=2)
    assert checkpoint.newest_whole(tmp_path) == tmp_path / "step_00000002"


def test_no_checkpoint_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent holds no whole checkpoint; let pretraining write one"):
        checkpoint.newest_whole(tmp_path / "absent")
    assert checkpoint.newest_step(tmp_path / "absent") is None


def test_a_copy_of_another_name_is_left_alone(tmp_path: Path) -> None:
    best = shutil.copytree(save(tmp_path, trained(), step=12, keep=1), tmp_path / "step_00000012_best")
    for step in (13, 14):
        save(tmp_path, trained(), step=step, keep=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_00000012_best", "step_00000014"]
    assert len(list(best.iterdir())) == 5


DAMAGES = {
    "missing": lambda file: file.unlink(),
    "empty": lambda file: file.write_bytes(b""),
    "truncated": lambda file: file.write_bytes(file.read_bytes()[:-3]),
    "flipped": lambda file: file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:]),
    "{}": lambda file: file.write_bytes(b"{}"),
    "nested": lambda file: file.write_bytes(b"[" * 100_000),
    "pipe": lambda file: (file.unlink(), os.mkfifo(file)),
    "device": lambda file: (file.unlink(), file.symlink_to("/dev/zero")),
    "folder": lambda file: (file.unlink(), file.mkdir()),
}


@pytest.mark.parametrize("name", [*checkpoint.FILES, checkpoint.CHECKSUMS])
@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_of_every_file_is_found_and_named(tmp_path: Path, name: str, damage: str) -> None:
    for step in (1, 2):
        save(tmp_path, trained(), step=step, keep=2)
    DAMAGES[damage](tmp_path / "step_00000002" / name)
    found = checkpoint.find_checkpoints(tmp_path)
    assert found.whole == [tmp_path / "step_00000001"]
    assert list(found.damaged) == [tmp_path / "step_00000002"]
    assert name in found.described()


@pytest.mark.parametrize(
    "sums",
    [
        lambda sums: {},
        lambda sums: [],
        lambda sums: {**sums, "../../../etc/passwd": "0"},
        lambda sums: {**sums, "/dev/zero": "0"},
        lambda sums: {name: 7 for name in sums},
        lambda sums: {name: value for name, value in sums.items() if name != "optimizer.pt"},
    ],
)
def test_sums_of_other_files_make_no_checkpoint_whole(tmp_path: Path, sums: Callable[[dict], object]) -> None:
    file = save(tmp_path, trained(), step=1, keep=1) / "checksums.json"
    file.write_text(json.dumps(sums(json.loads(file.read_text()))))
    assert not checkpoint.find_checkpoints(tmp_path).whole


def test_a_checkpoint_under_the_name_of_another_step_is_damaged(tmp_path: Path) -> None:
    save(tmp_path, trained(), step=1, keep=1).rename(tmp_path / "step_00000005")
    assert "state.json is of another step" in checkpoint.find_checkpoints(tmp_path).described()


def test_a_damaged_one_is_moved_aside_under_a_name_of_its_own(tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        names.append(checkpoint.move_aside(save(tmp_path, trained(), step=1, keep=1)).name)
    assert names == ["damaged_step_00000001", "damaged_step_00000001_2", "damaged_step_00000001_3"]
    assert checkpoint.find_checkpoints(tmp_path) == ([], {})


def test_room_is_looked_for_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, trained(), step=1, keep=1)
    state = trained()
    needed = sum(value.nbytes for value in state.method.state_dict().values())
    needed += sum(value.nbytes for values in state.optimizer.state.values() for value in values.values())
    usage = shutil.disk_usage(tmp_path)
    for free, fits in ((needed - 1, False), (needed, True)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: usage._replace(free=free))
        if fits:
            save(tmp_path, state, step=2, keep=1)
        else:
            with pytest.raises(
                InputError, match=r"cannot write .*step_00000002: 0 MB are needed.*step_00000001 is whole"
            ):
                save(tmp_path, state, step=2, keep=1)
            assert [path.name for path in tmp_path.iterdir()] == ["step_00000001"]


def test_a_state_of_another_kind_is_one_line(tmp_path: Path) -> None:
    path, other = save(tmp_path, trained(), step=1, keep=1), trained()
    torch.save({"optimizer": {"state": 3}}, path / "optimizer.pt")
    with pytest.raises(InputError, match=r"step_00000001 cannot be restored .* not a checkpoint of this run"):
        checkpoint.load(path, other.method, other.optimizer, None)


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
        (*checkpoint.FILES, checkpoint.CHECKSUMS), "0o640"
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
