"""Which files of a folder and which planes of them are read: by keys, by flags, and as the run did."""

import io
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from shard_files import member, write_tar
from tiny_run import write_run

import ssl_lens
from ssl_lens.cli.main import main
from ssl_lens.data.pixels.policy import PixelPolicy
from ssl_lens.data.source import open_source
from ssl_lens.representation.frozen import load_preprocess

_PLANES = ("VIS", "VIS_RMS", "NIR_Y")


@pytest.fixture
def cutouts(tmp_path, monkeypatch):
    """Eight Euclid-like files of two classes, in `cutouts`; their VIS planes alone in `vis`; returns all planes."""
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    planes = np.random.default_rng(0).gamma(2.0, 1e-12, (8, 3, 40, 40)).astype(np.float32)
    planes[:, 1, 20, 20] = 0  # a pixel without noise
    for i, image in enumerate(planes):
        for folder in (tmp_path / "cutouts" / "ab"[i % 2], tmp_path / "vis" / "ab"[i % 2]):
            folder.mkdir(parents=True, exist_ok=True)
        units = [fits.ImageHDU(plane, name=name) for plane, name in zip(image, _PLANES, strict=True)]
        fits.HDUList([fits.PrimaryHDU(), *units]).writeto(tmp_path / "cutouts" / "ab"[i % 2] / f"{i}_data.fits")
        np.save(tmp_path / "vis" / "ab"[i % 2] / f"{i}_data.npy", image[0])
    return planes


def _pack(*arguments):
    assert main(["data", "pack", "cutouts", "pack", *arguments]) == 0
    return np.load("pack/images.npy")


def test_flags_choose_planes_and_files(cutouts, capsys):
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    np.testing.assert_array_equal(_pack("--planes", "NIR_Y,VIS", "--files", "*_data.fits"), cutouts[order][:, [2, 0]])
    record = json.loads(Path("pack/manifest.json").read_text())
    assert record["policy"]["planes"] == ["NIR_Y", "VIS"]
    assert record["planes_left_out"] == {"VIS_RMS": 8}
    assert (
        main(["data", "pack", "cutouts", "other", "--files", "[0-3]*.fits", "--noise", "VIS_RMS", "--planes", "1"]) == 0
    )
    images = np.load("other/images.npy")
    assert images.shape == (4, 1, 40, 40)
    assert (images != cutouts[[0, 2, 1, 3]][:, :1]).sum() == 4  # one pixel each is filled
    assert (images[:, 0, 20, 20] == np.median(np.delete(images.reshape(4, -1), 820, axis=1), axis=1)).all()


def test_a_check_names_what_is_kept_out(cutouts, capsys):
    assert main(["data", "check", "cutouts"]) == 0
    assert "shapes [C, H, W]: (2, 40, 40) (8)\n" in (text := capsys.readouterr().out)
    assert "planes kept out of the images: VIS_RMS (8)\n" in text
    assert json.loads(Path("checks/cutouts/check.json").read_text())["planes_left_out"] == {"VIS_RMS": 8}
    _pack("--planes", "VIS")
    assert main(["data", "check", "pack"]) == 0
    assert "planes kept out of the images: NIR_Y (8), VIS_RMS (8)\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("data check cutouts --files *.npy", "--files=*.npy matches none of the 8 images in cutouts, such as a/0_data"),
        ("data check cutouts --planes VIS,,", "argument --planes: 'VIS,,' has an empty name"),
        ("data pack cutouts new --planes DECAM", "--planes=DECAM: no plane of this name or number in the file (1 VIS"),
        ("data pack cutouts new --noise RMS", "--noise=RMS: no plane of this name or number in the file (1 VIS, 2"),
        ("data check pack --files *", "--files=* chooses files of a folder, but pack is a pack; pack the files that"),
        ("data check cutouts --files /", "--files='/' is not a pattern; give one such as '*data.fits'"),
        (
            "pretrain esvit_micro data.path=pack data.planes=NIR_Y",
            "was packed with data.planes=VIS, but data.planes=NI",
        ),
        (
            "pretrain esvit_micro data.path=pack data.noise=VIS_RMS",
            "was packed without noise, but data.noise=VIS_RMS is",
        ),
        ("pretrain esvit_micro data.path=cutouts data.planes=[a,,b]", "data.planes"),
        (
            "pretrain esvit_micro data.path=vis data.noise=RMS",
            "data.noise=RMS of a file that has no named planes; leave",
        ),
        ("pretrain esvit_micro data.path=x.tar data.files=*", "data.files=* chooses files of a folder; shards are"),
    ],
)
def test_what_cannot_be_is_one_line(cutouts, capsys, command, message):
    _pack("--planes", "VIS")
    capsys.readouterr()
    try:
        status = main(command.split())
    except SystemExit as end:  # argparse
        status = end.code
    shown = capsys.readouterr()
    assert status in (1, 2)
    assert message in shown.out + shown.err


def test_planes_travel_with_a_run_and_flags_replace_them(cutouts):
    run = write_run(Path("run"), "data.planes=VIS", "data.noise=VIS_RMS")
    assert load_preprocess(run).policy == PixelPolicy(planes=("VIS",), noise=("VIS_RMS",))
    vectors = {}
    for name, *arguments in (
        ("run", "cutouts"),
        ("vis", "vis", "--noise", "none"),
        ("numbered", "cutouts", "--planes", "1", "--noise", "none"),
        ("other", "cutouts", "--planes", "NIR_Y", "--files", "*_data.fits"),
    ):
        assert main(["embed", "run", arguments[0], f"{name}.npy", *arguments[1:], "--which", "view"]) == 0
        vectors[name] = np.load(f"{name}.npy")
    np.testing.assert_array_equal(vectors["vis"], vectors["numbered"])
    assert not np.array_equal(vectors["run"], vectors["vis"])  # the pixel without noise
    np.testing.assert_allclose(vectors["run"], vectors["vis"], atol=0.1)
    assert np.abs(vectors["other"] - vectors["vis"]).max() > 0.01


def test_in_python(cutouts):
    images = ssl_lens.read_images("cutouts", files="a/*.fits", planes=["NIR_Y"])
    assert images.names == tuple(f"a/{i}_data.fits" for i in (0, 2, 4, 6))
    np.testing.assert_array_equal(images.images[:], cutouts[::2, 2:])


def test_single_files_say_what_is_kept_out(cutouts, caplog):
    caplog.set_level(logging.INFO)
    images = ssl_lens.read_images("cutouts/a/0_data.fits")
    np.testing.assert_array_equal(images.images, cutouts[:1, [0, 2]])
    assert caplog.messages == ["cutouts/a/0_data.fits: planes kept out of the images: VIS_RMS (1)"]


def test_planes_of_streamed_shards(cutouts, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    members = []
    for i, image in enumerate(cutouts):
        file = io.BytesIO()
        np.savez(file, **dict(zip(_PLANES, image, strict=True)))
        members.append(member(f"{i}.npz", file.getvalue()))
    write_tar(tmp_path / "0.tar", members)
    source = open_source(str(tmp_path / "0.tar"), policy=PixelPolicy(planes=("NIR_Y",)))
    np.testing.assert_array_equal(source.sample(), cutouts[:, 2:])
    assert "0.tar#000000: planes kept out of the images: VIS (1), VIS_RMS (1)" in caplog.text
