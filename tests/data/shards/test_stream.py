"""Batches from shards: exact after any interruption, in this process and in others."""

import dataclasses
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from shard_files import image, member, npy, write_shards, write_tar

from ssl_lens.data import quarantine
from ssl_lens.data.batches import Plan
from ssl_lens.data.formats import tar_file
from ssl_lens.data.pixels.policy import PixelPolicy
from ssl_lens.data.shards.readers import Readers
from ssl_lens.data.shards.shard_set import ShardSet, find_shards
from ssl_lens.data.shards.stream import Stream
from ssl_lens.errors import InputError

COUNTS = (7, 1, 13, 5, 11, 3, 8)  # 48 images


@pytest.fixture
def forty_eight(tmp_path: Path) -> ShardSet:
    return find_shards(write_shards(tmp_path / "set", COUNTS), policy=PixelPolicy())


@pytest.fixture
def stream(tmp_path: Path) -> Callable[..., Stream]:
    def make(
        shards: ShardSet, *, rank: int = 0, world_size: int = 1, workers: int = 0, batch: int = 12, accumulate: int = 1
    ) -> Stream:
        opened = dataclasses.replace(
            shards, workers=workers, shuffle_buffer=4, quarantine=tmp_path / "run" / "quarantine.tsv"
        )
        return opened.batches(Plan(batch, accumulate, seed=3, rank=rank, world_size=world_size), torch.device("cpu"))

    return make


def seen(one: Stream, step: int) -> list[int]:
    """Indices of a step; each image is the one of its index."""
    for raw, index in one.at(step):
        assert raw.shape == (len(index), 1, 4, 4)
        assert raw.dtype == torch.float32
        np.testing.assert_array_equal(raw[:, 0, 0, 0], index)
    return [i for _, index in one.at(step) for i in index.tolist()]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_an_epoch_sees_every_image_once_over_all_ranks(forty_eight, stream, world_size):
    ranks = [stream(forty_eight, rank=rank, world_size=world_size, accumulate=2) for rank in range(world_size)]
    assert [one.steps_per_epoch for one in ranks] == [4] * world_size
    epochs = [[i for one in ranks for step in range(4) for i in seen(one, 4 * epoch + step)] for epoch in (0, 1)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(48))] * 2
    assert epochs[0] != epochs[1]


def test_any_step_can_be_read_first(forty_eight, stream):
    in_order = stream(forty_eight)
    expected = [seen(in_order, step) for step in range(10)]
    assert [seen(stream(forty_eight), step) for step in range(10)] == expected
    assert [seen(in_order, step) for step in (5, 5, 2, 3, 9)] == [expected[step] for step in (5, 5, 2, 3, 9)]


def test_what_was_seen_before_an_interruption_is_not_read_again(forty_eight, stream, monkeypatch):
    whole = stream(forty_eight)
    before = set(seen(whole, 0) + seen(whole, 1))
    read, original = [], tar_file._data
    monkeypatch.setattr(
        tar_file, "_data", lambda file, info: (read.append(int(info.name[:5])), original(file, info))[1]
    )
    resumed = stream(forty_eight)
    after = seen(resumed, 2) + seen(resumed, 3)
    assert sorted(read) == sorted(after)
    assert before.isdisjoint(read)


def test_processes_read_as_one_would_after_any_interruption(forty_eight, stream):
    """Two workers, five micro-batches an epoch: whose turn it is changes from epoch to epoch."""
    whole = stream(forty_eight, workers=2, batch=9)
    expected = [seen(whole, step) for step in range(11)]
    for epoch in (expected[:5], expected[5:10]):
        assert len({i for step in epoch for i in step}) == 45
    assert [seen(whole, step) for step in (7, 8, 9, 10)] == expected[7:]
    whole.close()


def spoil(folder: Path, shard: int, bad: dict[int, np.ndarray | bytes], counts: tuple[int, ...] = COUNTS) -> None:
    """Writes a shard again, with other contents at some of its places."""
    first = sum(counts[:shard])
    members = []
    for i in range(counts[shard]):
        value = bad.get(i, image(first + i))
        members.append(member(f"{first + i:05d}.npy", value if isinstance(value, bytes) else npy(value)))
    write_tar(folder / f"{shard}.tar", members)


NAN = image(0).copy()
NAN[0, 2:] = np.nan


def test_bad_images_are_replaced_named_once_and_listed(tmp_path, stream, caplog, monkeypatch):
    monkeypatch.setattr(quarantine, "MOST_UNUSABLE", 0.1)
    counts = (200, 200, 200)
    pattern = write_shards(tmp_path / "set", counts)
    spoil(tmp_path / "set", 1, {5: b"no array", 6: np.ones((1, 4, 4)), 40: NAN}, counts)
    spoil(tmp_path / "set", 2, {7: image(9, side=5)}, counts)
    shards = find_shards(pattern, policy=PixelPolicy())
    one = stream(shards, batch=60)
    with caplog.at_level(logging.WARNING):
        epochs = [[i for step in range(10) for i in seen(one, 10 * epoch + step)] for epoch in range(2)]
    bad = {205: "1.tar#000005", 206: "1.tar#000006", 240: "1.tar#000040", 407: "2.tar#000007"}
    for epoch in epochs:
        assert len(epoch) == 600
        assert set(epoch) == set(range(600)) - bad.keys()
    assert {i: shards.names[i] for i in bad} == bad
    lines = dict(line.split("\t") for line in (tmp_path / "run" / "quarantine.tsv").read_text().splitlines())
    assert lines.keys() == set(bad.values())
    assert "constant" in lines["1.tar#000006"]
    assert "NaN" in lines["1.tar#000040"]
    assert lines["2.tar#000007"] == "shape (1, 5, 5), not (1, 4, 4)"
    warned = [record.message.split()[0] for record in caplog.records if record.levelname == "WARNING"]
    assert sorted(warned) == sorted(bad.values())
    again = stream(shards, batch=60)
    assert [seen(again, step) for step in (3, 4)] == [epochs[0][180:240], epochs[0][240:300]]
    assert len((tmp_path / "run" / "quarantine.tsv").read_text().splitlines()) == 4


def test_too_many_bad_images_end_the_run(tmp_path, stream, monkeypatch):
    monkeypatch.setattr(quarantine, "JUDGED_FROM", 100)
    counts = (120, 120)
    pattern = write_shards(tmp_path / "set", counts)
    spoil(tmp_path / "set", 1, {i: b"" for i in (0, 3, 4, 90)}, counts)
    shards = find_shards(pattern, policy=PixelPolicy())
    one = stream(shards, batch=60)
    with pytest.raises(InputError, match=r"of 1?\d\d images read from the shards are unusable, such as 1.tar#0000.*1%"):
        [seen(one, step) for step in range(4)]


def test_a_set_of_bad_images_does_not_search_for_ever(tmp_path, stream, monkeypatch):
    shards = find_shards(write_shards(tmp_path / "set", (24,)), policy=PixelPolicy())
    spoil(tmp_path / "set", 0, {i: b"" for i in range(24)}, (24,))
    monkeypatch.setattr(quarantine, "JUDGED_FROM", 10**9)
    with pytest.raises(InputError, match="100 images in a row are unusable, such as 0.tar#0000"):
        seen(stream(shards), 0)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_ends_early_is_one_line(tmp_path, forty_eight, stream, workers):
    path = tmp_path / "set" / "4.tar"
    path.write_bytes(path.read_bytes()[:3000])
    one = stream(forty_eight, workers=workers)
    with pytest.raises(InputError, match="4.tar: tar is truncated.*; write the shard again") as error:
        [seen(one, step) for step in range(4)]
    assert "\n" not in str(error.value)


def test_a_shard_with_fewer_images_than_said_is_one_line(tmp_path, stream):
    pattern = write_shards(tmp_path / "set", (20, 20))
    (tmp_path / "set" / "sizes.json").write_text('{"0.tar": 20, "1.tar": 28}')
    one = stream(find_shards(pattern, policy=PixelPolicy()))
    with pytest.raises(InputError, match="1.tar holds 20 images but should hold 28; correct sizes.json or the shard"):
        [seen(one, step) for step in range(4)]


def test_a_reader_that_is_killed_is_one_line(tmp_path, stream):
    """Killed in the middle of a message, as batches are larger than a pipe: the run does not wait for the rest."""
    shards = find_shards(write_shards(tmp_path / "set", (40, 40), side=128), policy=PixelPolicy())
    one = stream(shards, workers=2)
    one.at(0)
    for reader in one._readers.processes:
        while _state(reader.pid) != "S":  # it waits for its pipe
            time.sleep(0.01)
    os.kill(one._readers.processes[1].pid, signal.SIGKILL)
    with pytest.raises(
        InputError, match="a reading process was ended from outside.*; lower workers=2 or shuffle_buffer=4"
    ):
        [one.at(step) for step in range(1, 10)]


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.parametrize(
    ("name", "held_out"), [("test/00003", True), ("lens_val_00003", True), ("latest/00003", False)]
)
def test_what_a_member_s_name_holds_out_is_not_streamed(tmp_path, stream, name, held_out):
    members = [member(f"train/{i:05d}.npy", npy(image(i))) for i in range(3)]
    write_tar(tmp_path / "0.tar", [*members, member(f"{name}.npy", npy(image(3)))])
    shards = find_shards(str(tmp_path / "0.tar"), policy=PixelPolicy())
    if held_out:
        with pytest.raises(InputError, match=rf"0.tar holds {name}.npy, which its name keeps for tests; stream"):
            stream(shards, batch=4).at(0)
        with pytest.raises(InputError, match="keeps for tests"):
            shards.sample()
    else:
        assert sorted(seen(stream(shards, batch=4), 0)) == [0, 1, 2, 3]


def test_a_reader_that_fails_says_so():
    readers = Readers(_fail_after_one, 1)
    assert next(readers) == 0
    with pytest.raises(RuntimeError, match="a reading process failed with exit status 1; its error is above"):
        next(readers)


def _fail_after_one(number: int) -> Iterator[int]:
    yield number
    raise ZeroDivisionError


def test_ctrl_c_leaves_the_readers_alone_and_closing_ends_them(forty_eight, stream):
    one = stream(forty_eight, workers=1)
    seen(one, 0)
    (reader,) = one._readers.processes
    os.kill(reader.pid, signal.SIGINT)
    assert len({i for step in range(1, 8) for i in seen(one, step)}) == 48
    one.close()
    reader.join(10)
    assert reader.exitcode == 0


def test_the_random_numbers_of_the_run_are_not_touched(forty_eight, stream):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    seen(stream(forty_eight), 0)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch": 49}, "batch_size=49 exceeds the 48 images; set batch_size to 48 or less"),
        ({"batch": 10, "world_size": 3}, "not a multiple of 3 processes x accumulate=1"),
    ],
)
def test_a_batch_that_cannot_be_is_refused(forty_eight, stream, arguments, message):
    with pytest.raises(InputError, match=message):
        stream(forty_eight, **arguments)
