"""Patterns, counts, and what is refused of them."""

import json
from pathlib import Path

import pytest
from shard_files import image, member, npy, write_shards, write_tar

from ssl_lens.data.shards import shard_list
from ssl_lens.data.shards.shard_list import are_shards, list_shards
from ssl_lens.data.shards.shard_set import read_entries
from ssl_lens.errors import InputError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path / "cache"))


def test_what_is_streamed_and_what_is_packed(tmp_path):
    for path in ("a/{0..9}.tar", "a.tar", "A.TAR", "a.tar.gz", "http://x/a.tar", "s3://x/{0..9}.tar", "pipe:cat a.tar"):
        assert are_shards(path), path
    folder = tmp_path / "{odd}.tar"
    folder.mkdir()
    for path in (str(folder), "images", "images.npy"):
        assert not are_shards(path), path


def test_shards_are_counted_once(tmp_path, monkeypatch):
    pattern = write_shards(tmp_path / "set", (3, 1, 5))
    assert [(shard.name, shard.count) for shard in list_shards(pattern)] == [("0.tar", 3), ("1.tar", 1), ("2.tar", 5)]
    counted = []
    count = shard_list._count
    monkeypatch.setattr(shard_list, "_count", lambda url: (counted.append(Path(url).name), count(url))[1])
    list_shards(pattern)
    assert counted == []
    write_shards(tmp_path / "set", (3, 2))
    assert [shard.count for shard in list_shards(pattern)] == [3, 2, 5]
    assert sorted(counted) == ["0.tar", "1.tar"]  # written again, at another time


def test_samples_without_an_image_do_not_count(tmp_path):
    path = write_tar(tmp_path / "a.tar", [member("a.cls", b"1"), member("b.npy", npy(image(1))), member("b.cls", b"1")])
    assert [shard.count for shard in list_shards(str(path))] == [1]


def test_sizes_next_to_the_shards_go_first(tmp_path, monkeypatch):
    pattern = write_shards(tmp_path / "set", (3, 1))
    (tmp_path / "set" / "sizes.json").write_text(json.dumps({"0.tar": 2, "1.tar": 1, "9.tar": 4}))
    monkeypatch.setattr(shard_list, "_count", None)
    assert [shard.count for shard in list_shards(pattern)] == [2, 1]


def test_names_tell_folders_apart(tmp_path):
    for folder in ("a", "b"):
        write_shards(tmp_path / folder, (2,))
    shards = list_shards(f"{tmp_path}/{{a,b}}/0.tar")
    assert [shard.name for shard in shards] == ["a/0.tar", "b/0.tar"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b"3",
        b"null",
        b'{"0.tar": true}',
        b'{"0.tar": 1.5}',
        b'{"0.tar": -1}',
        b'{"0.tar": "1"}',
    ]
    + [b'{"0.tar": NaN}', b"[" * 100_000],
)
def test_wrong_counts_next_to_the_shards_are_one_line(tmp_path, content):
    pattern = write_shards(tmp_path / "set", (3, 1))
    (tmp_path / "set" / "sizes.json").write_bytes(content)
    with pytest.raises(
        InputError, match=r"sizes.json (is not JSON|is not an object of shards|cannot be read)"
    ) as error:
        list_shards(pattern)
    assert "\n" not in str(error.value)


def test_counts_that_are_not_true(tmp_path):
    """More than there are is found out where the shard ends; fewer are a choice of the user."""
    write_shards(tmp_path / "set", (3,))
    places = {}
    for count in (2, 4):
        (tmp_path / "set" / "sizes.json").write_text(json.dumps({"0.tar": count}))
        (shard,) = list_shards(str(tmp_path / "set" / "0.tar"))
        places[count] = (place for place, _ in read_entries(shard, 0, shard.count, lambda place: True))
    assert list(places[2]) == [0, 1]
    with pytest.raises(InputError, match="holds 3 images but should hold 4; correct sizes.json or the shard"):
        list(places[4])


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{root}/set/{{0..4}}.tar", "3 of 5 shards do not exist, or cannot .* such as .*/2.tar"),
        ("{root}/none.tar", "1 of 1 shards do not exist"),
        ("{root}/set/{{0,0}}.tar", "names a shard twice; narrow the pattern"),
        ("{root}/set/{{0..1.tar", "has an unmatched brace"),
        ("{root}/set/{{0..100000}}.tar", "names more than 100000 shards"),
        ("{root}/set/{{0..1}}", "0 is not a .tar; give a folder of images or .tar shards"),
        ("{root}/set/0.tar.gz", "0.tar.gz is compressed; unpack it to a .tar"),
        ("pipe:touch {root}/escaped; cat {root}/set/0.tar", "would run a program; give a path"),
        ("{root}/empty.tar", "1 of 1 shards hold no image, such as .*empty.tar; remove them"),
        ("{root}/text.tar", "text.tar: tar is truncated or damaged at byte 5 .*; write the shard again"),
        ("{root}/cut.tar", "cut.tar: tar is truncated or damaged at byte 2048 .*; write the shard again"),
        (
            "nowhere://x/0.tar",
            "nowhere://x/0.tar is of no protocol that is read; give a path or one of http, ",
        ),
        ("{root}/bad/0.tar", "sizes.json is not JSON: .*; write "),
        ("{root}/worse/0.tar", "sizes.json is not an object of shards and their numbers of images"),
        (
            "memory://x/{{0..1}}.tar",
            r'in 2 of 2 shards is not known, such as memory://x/0.tar; put sizes.json next to .*"0.tar": 1000',
        ),
    ],
)
def test_what_cannot_be_used_is_one_line(tmp_path, pattern, message):
    write_shards(tmp_path / "set", (2, 2))
    write_tar(tmp_path / "empty.tar", [member("a.txt", b"x")])
    (tmp_path / "text.tar").write_text("hello")
    (tmp_path / "cut.tar").write_bytes((tmp_path / "set" / "0.tar").read_bytes()[:2048])
    for folder, text in (("bad", "{"), ("worse", '{"0.tar": -1}')):
        write_shards(tmp_path / folder, (1,))
        (tmp_path / folder / "sizes.json").write_text(text)
    with pytest.raises(InputError, match=message) as error:
        list_shards(pattern.format(root=tmp_path))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "escaped").exists()
