"""Packs, tables, files of names and addresses from strangers: one line each, at once."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hostile import NO_JSON, UNREADABLE, place, refused
from shard_files import write_shards

from ssl_lens.data.folders.tables import read_table
from ssl_lens.data.images import load_images, pack_images
from ssl_lens.data.pixels.policy import PixelPolicy
from ssl_lens.data.reading import read_images
from ssl_lens.data.shards.shard_list import list_shards
from ssl_lens.data.source import open_source
from ssl_lens.data.splits import read_names


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    (folder / "images").mkdir()
    for i, image in enumerate(np.random.default_rng(0).normal(size=(4, 8, 8))):
        np.save(folder / "images" / f"{i}.npy", image)
    pack_images(folder / "images", folder / "pack", policy=PixelPolicy(), layout="auto", table=None)
    return folder / "pack"


@pytest.fixture
def pack(sound, tmp_path):
    return Path(shutil.copytree(sound, tmp_path / "pack"))


FILES = ("images.npy", "images.csv", "images.sha256", "manifest.json")


@pytest.mark.parametrize("what", UNREADABLE)
@pytest.mark.parametrize("file", FILES)
def test_what_is_not_a_part_of_a_pack(pack, file, what):
    place(pack / file, what)
    refused(lambda: load_images(pack), str(pack))


@pytest.mark.parametrize("what", NO_JSON)
def test_what_is_not_a_manifest(pack, what):
    place(pack / "manifest.json", what)
    refused(lambda: load_images(pack), "manifest.json")


MANIFEST = {
    "format": [None, 3, ["ssl_lens pack 3"], "ssl_lens pack 99"],
    "images": [None, -1, 3, "4", 4.5, 10**30, [4], float("nan")],
    "shape": [None, 1, [], [1, 8], [1, 8, 9], [-1, -8, 8], ["1", 8, 8], [10**9, 10**9, 10**9], {"1": 8}],
    "policy": [None, [], {}, 3, {"mask_value": "x", "max_masked": 0.1, "sizes": "refuse", "size": None}],
    "quarantined": [None, 3, [1], [["a"]], [["a", "b", "c"]], "ab"],
    "flagged_pixels": [None, "many", [], float("nan"), float("inf")],
    "flagged_images": [None, {}],
    "sha256": [None, {}, [], {"images.csv": 3, "images.sha256": 3}],
}


@pytest.mark.parametrize("key", MANIFEST)
def test_manifests_that_cannot_be(pack, key):
    whole = json.loads((pack / "manifest.json").read_text())
    for value in MANIFEST[key]:
        (pack / "manifest.json").write_text(json.dumps(whole | {key: value}))
        refused(lambda: load_images(pack), str(pack))
    (pack / "manifest.json").write_text(json.dumps({name: whole[name] for name in whole if name != key}))
    refused(lambda: load_images(pack), str(pack))


@pytest.mark.parametrize(
    "policy", [{"mask_value": []}, {"max_masked": "0"}, {"sizes": 3}, {"size": [8]}, {"size": "88"}]
)
def test_policies_that_cannot_be(pack, policy):
    whole = json.loads((pack / "manifest.json").read_text())
    (pack / "manifest.json").write_text(json.dumps(whole | {"policy": whole["policy"] | policy}))
    refused(lambda: load_images(pack), str(pack))


HEADERS = {
    "deep": b"(" * 9000,
    "huge": repr({"descr": "<f4", "fortran_order": False, "shape": (1 << 60, 1, 8, 8)}).encode(),
    "negative": repr({"descr": "<f4", "fortran_order": False, "shape": (-4, -1, 8, 8)}).encode(),
    "of objects": repr({"descr": "|O", "fortran_order": False, "shape": (4, 1, 8, 8)}).encode(),
    "of words": repr({"descr": "<f4", "fortran_order": False, "shape": ("4", 1, 8, 8)}).encode(),
    "of nothing": repr({"descr": "<f4", "fortran_order": False, "shape": ()}).encode(),
    "other keys": b"{'a': 1}",
    "code": b"__import__('os').system('touch escaped')",
}


@pytest.mark.parametrize("what", HEADERS)
def test_headers_of_the_array(pack, what):
    header = HEADERS[what].ljust(118) + b"\n"
    magic = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
    (pack / "images.npy").write_bytes(magic + header + bytes(1024))
    refused(lambda: load_images(pack), str(pack))


def test_a_table_of_other_images(pack):
    (pack / "images.csv").write_text("name\na.npy\n")
    whole = json.loads((pack / "manifest.json").read_text())
    whole["sha256"]["images.csv"] = hashlib.sha256((pack / "images.csv").read_bytes()).hexdigest()
    (pack / "manifest.json").write_text(json.dumps(whole))
    assert "has 1 lines for 4 images" in refused(lambda: load_images(pack), "images.csv")


@pytest.mark.parametrize("what", [*UNREADABLE, "kernel's messages"])
@pytest.mark.parametrize("file", ["a.csv", "a.parquet"])
def test_what_is_not_a_table(sound, tmp_path, file, what):
    place(tmp_path / file, what)
    refused(lambda: read_table(tmp_path / file), file)
    refused(lambda: load_images(sound, table=tmp_path / file), file)


TABLES = {
    "one name again at the end": b"name,z\n" + b"".join(b"%d.npy,1\n" % i for i in range(200_000)) + b"7.npy,2\n",
    "a line without end": b"name,label\n" + b"a" * (8 << 20),
    "quotes without end": b'name,label\n"' + b"a,b\n" * 200_000,
    "ten thousand columns": b",".join(b"c%d" % i for i in range(10_000)) + b"\n",
    "columns of one name": b"name,a,a\nx.npy,1,2\n",
    "NULs": b"name\n\0\0\0\n" * 9 + b"\0",
    "an infinite number": b"name,mass\na.npy,inf\n",
    "two lines for many lines": b'name,label\n"a\nb\nc",1\n"a\nb\nc",2\n',
}


@pytest.mark.parametrize("what", TABLES)
def test_tables_that_cannot_be(tmp_path, what):
    (tmp_path / "a.csv").write_bytes(TABLES[what])
    refused(lambda: read_table(tmp_path / "a.csv"), "a.csv")


@pytest.mark.parametrize("what", [*[one for one in UNREADABLE if one != "empty"], "nothing"])
def test_what_is_not_a_list_of_names(tmp_path, what):
    place(tmp_path / "names.txt", what)
    refused(lambda: read_names(tmp_path / "names.txt"), "names.txt")


@pytest.mark.parametrize("what", [*UNREADABLE, "kernel's messages", "terminal"])
@pytest.mark.parametrize("file", ["a.npy", "a.fits", "a.tif", "a.h5", "a.png", "a.tar"])
def test_what_is_not_an_image(tmp_path, file, what):
    (tmp_path / "set").mkdir()
    place(tmp_path / "set" / file, what)
    if what == "folder":
        refused(lambda: load_images(tmp_path / "set"), "set holds no images")
    else:
        refused(lambda: load_images(tmp_path / "set"), file)
        refused(lambda: read_images([tmp_path / "set" / file]), file)


ADDRESSES = {
    "of protocols that are no places": [
        *("ftp://127.0.0.1:1/a.tar", "reference://a.tar", "reference://", "zip://a.tar::http://127.0.0.1:1/x.zip"),
        *("simplecache::file:///a.tar", "filecache://a.tar", "github://a:b@c/a.tar", "git://x/a.tar", "dir://a.tar"),
        *(
            "ssh://x/a.tar",
            "smb://x/a.tar",
            "generic://a.tar",
            "data://a.tar",
            "local://a.tar",
            "://a.tar",
            "a_b://c.tar",
        ),
    ],
    "that are none": ["http://[::1/a.tar", "http://", "s3://", "a\0b.tar", "file:///none.tar", "pipe:cat /etc/passwd"],
    "of too many": [
        *("{0..99999999}.tar", "{0..99999999999999999999}.tar", "{1..9999}{1..9999}.tar", "{a,b}" * 40 + ".tar"),
        *(
            "{a,{0..999999}}.tar",
            "{x,{0..999}{0..999}{0..999}}.tar",
            "{a," * 500 + "b" + "}" * 500 + ".tar",
        ),
    ],
    "of unmatched braces": ["{0..1.tar", "0..1}.tar", "{a,{b}.tar"],
    "of nothing that is there": [
        "{0..1..0}.tar",
        "{-1..1}.tar",
        "{000000000..1}.tar",
        "{a..z}.tar",
        "{a,}.tar",
    ],
}


@pytest.mark.parametrize("kind", ADDRESSES)
def test_addresses(kind):
    for address in ADDRESSES[kind]:
        refused(lambda address=address: open_source(address), "path=")


def test_patterns_mean_what_they_did(tmp_path):
    write_shards(tmp_path, (1, 1, 1, 1))
    for pattern, count in (
        ("{0..3}", 4),
        ("{3..0..2}", 2),
        ("{0,{1..3}}", 4),
        ("{0,1}", 2),
        ("2", 1),
    ):
        assert len(list_shards(f"{tmp_path}/{pattern}.tar")) == count
    (tmp_path / "a{b}.tar").write_bytes((tmp_path / "0.tar").read_bytes())
    assert [shard.name for shard in list_shards(f"{tmp_path}/a\\{{b\\}}.tar")] == ["a{b}.tar"]


@pytest.mark.parametrize("what", [*[one for one in UNREADABLE if one != "empty"], "deep", "list"])
def test_what_is_not_a_list_of_sizes(tmp_path, what):
    pattern = write_shards(tmp_path / "set", (1, 1))
    place(tmp_path / "set" / "sizes.json", what)
    refused(lambda: list_shards(pattern), "sizes.json")
