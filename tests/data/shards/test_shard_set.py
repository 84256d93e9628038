"""The streamed set: names, a sample to fit to, and what its images must be."""

import numpy as np
import pytest
from shard_files import image, member, npy, write_shards, write_tar

from ssl_lens.data import quarantine
from ssl_lens.data.pixels.policy import PixelPolicy
from ssl_lens.data.shards.shard_set import find_shards
from ssl_lens.errors import InputError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path / "cache"))


def test_names_count_through_the_shards(tmp_path):
    shards = find_shards(write_shards(tmp_path, (3, 1, 12)), policy=PixelPolicy())
    assert (len(shards), len(shards.names), shards.shape) == (16, 16, (1, 4, 4))
    assert [shards.names[i] for i in (0, 2, 3, 4, 15)] == [
        "0.tar#000000",
        "0.tar#000002",
        "1.tar#000000",
        "2.tar#000000",
        "2.tar#000011",
    ]
    with pytest.raises(IndexError):
        shards.names[16]


def test_a_sample_is_spread_over_the_set_and_bounded(tmp_path):
    shards = find_shards(write_shards(tmp_path, (20,) * 10), policy=PixelPolicy())
    whole = shards.sample(1 << 30)
    np.testing.assert_array_equal(whole[:, 0, 0, 0], np.arange(200))
    few = shards.sample(20 * 64)[:, 0, 0, 0]
    np.testing.assert_array_equal(few, np.add.outer(np.arange(10) * 20, [0, 19]).ravel())
    assert shards.sample(64)[:, 0, 0, 0].tolist() == [0]


def test_a_remote_sample_is_from_the_front_of_its_shards(tmp_path):
    pattern = write_shards(tmp_path, (20,) * 2)
    (tmp_path / "sizes.json").write_text('{"0.tar": 20, "1.tar": 20}')
    shards = find_shards(f"file://{pattern}", policy=PixelPolicy())
    assert shards.sample(6 * 64)[:, 0, 0, 0].tolist() == [0, 1, 2, 20, 21, 22]


def test_pixels_and_sizes_follow_the_policy(tmp_path):
    flagged = image(1, side=6)
    flagged[0, 0, 0] = 100
    write_tar(tmp_path / "0.tar", [member("a.npy", npy(flagged)), member("b.npy", npy(image(2, side=8)))])
    cropped = find_shards(f"{tmp_path}/0.tar", policy=PixelPolicy(mask_value=100, sizes="crop", size=(4, 4)))
    assert cropped.shape == (1, 4, 4)
    sample = cropped.sample(1 << 20)
    np.testing.assert_array_equal(sample[0], flagged[:, 1:5, 1:5])
    np.testing.assert_array_equal(sample[1], image(2, side=8)[:, 2:6, 2:6])
    padded = find_shards(f"{tmp_path}/0.tar", policy=PixelPolicy(mask_value=100, sizes="pad", size=(8, 8)))
    assert padded.sample(1 << 20)[0, 0, 1, 1] == np.median(flagged[0].ravel()[1:])


@pytest.mark.parametrize(
    ("policy", "in_channels", "message"),
    [
        (PixelPolicy(), 3, "holds images of 1 channels, needed are 3; give other"),
        (PixelPolicy(sizes="crop"), None, "sizes=crop of streamed shards needs the size as well, such as size=64"),
        (
            PixelPolicy(sizes="crop", size=(5, 5)),
            None,
            "none of 3 images tried is usable, such as .*: 4x4 pixels",
        ),
        (
            PixelPolicy(sizes="pad", size=(3, 3)),
            None,
            "none of 3 images tried is usable, such as .*: 4x4 pixels",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path, policy, in_channels, message):
    with pytest.raises(InputError, match=message):
        find_shards(write_shards(tmp_path, (3,)), policy=policy, in_channels=in_channels)


def test_a_sample_with_many_bad_images_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(quarantine, "JUDGED_FROM", 100)
    members = [member(f"{i}.npy", npy(image(i)) if i % 50 else b"") for i in range(1, 201)]
    write_tar(tmp_path / "0.tar", members)
    shards = find_shards(f"{tmp_path}/0.tar", policy=PixelPolicy())
    with pytest.raises(
        InputError, match=r"2 of 100 images read from the shards are unusable, such as 0.tar#000049: EOF"
    ):
        shards.sample(1 << 20)
