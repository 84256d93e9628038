import json

import numpy as np
import pytest
import torch

from ssl_lens.data.pixels.policy import PixelPolicy
from ssl_lens.data.pixels.preprocess import Preprocess, fit_preprocess
from ssl_lens.data.pixels.stretch import Stretch, no_stretch
from ssl_lens.errors import InputError

STRETCHES = ["none", "asinh", "log", "percentile", "zscale"]
BANDS = ["per_band", "joint"]


def _images(count: int, channels: int, size: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    scale = np.arange(1, channels + 1, dtype=np.float64)[:, None, None]
    return (rng.normal(size=(count, channels, size, size)) * scale + 10 * scale).astype(np.float32)


def _lenses(count: int, channels: int, size: int) -> np.ndarray:
    """Gaussian sources on a noisy sky of 0, brighter from band to band: float64 [N, C, H, W]."""
    rng = np.random.default_rng(4)
    y, x = np.mgrid[:size, :size] - size / 2
    source = np.exp(-(x**2 + y**2) / (2 * (size / 8) ** 2)) * rng.uniform(1, 3, (count, 1, 1, 1))
    return (source + rng.normal(0, 0.05, (count, channels, size, size))) * np.arange(1, channels + 1)[:, None, None]


def test_crop_and_bin_take_the_centre_and_the_mean():
    raw = torch.arange(64.0).view(1, 1, 8, 8)
    out = Preprocess.plain(1, center_crop=4, bin=2)(raw)
    # Rows 2..5 and columns 2..5; the first block is (18 + 19 + 26 + 27) / 4.
    assert out.tolist() == [[[[22.5, 24.5], [38.5, 40.5]]]]
    odd = Preprocess.plain(1, center_crop=3)(torch.arange(25.0).view(1, 1, 5, 5))
    assert odd[0, 0].tolist() == [[6, 7, 8], [11, 12, 13], [16, 17, 18]]


def test_stretch_then_standardise_per_channel():
    raw = torch.tensor([[2.0, -30.0]]).view(1, 2, 1, 1)
    out = Preprocess(
        None, 1, Stretch("asinh", [0.0, 0.0], [0.5, 10.0]), mean=[1.0, -1.0], std=[2.0, 4.0], sky=[0.0, 0.0]
    )(raw)
    expected = [(np.arcsinh(4.0) - 1) / 2, (np.arcsinh(-3.0) + 1) / 4]
    np.testing.assert_allclose(out.flatten(), expected, rtol=1e-6)


def test_integer_pixels_are_taken():
    counts = torch.tensor([[[[0, 255]]]], dtype=torch.uint8)
    preprocess = Preprocess(None, 1, no_stretch(1), mean=[127.5], std=[127.5], sky=[0.0])
    assert preprocess(counts).flatten().tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("stretch", STRETCHES)
@pytest.mark.parametrize("bands", BANDS)
@pytest.mark.parametrize("unit", [1e-12, 1e6])
def test_units_of_the_flux_do_not_matter(stretch, bands, unit):
    images = _lenses(32, 2, 16)
    out = {}
    for scale in (1.0, unit):
        scaled = (images * scale).astype(np.float32)
        fitted = fit_preprocess(scaled, center_crop=12, bin=2, stretch=stretch, bands=bands)
        out[scale] = fitted(torch.from_numpy(scaled))
    torch.testing.assert_close(out[unit], out[1.0], rtol=0, atol=1e-5)
    assert out[unit].shape == (32, 2, 6, 6)
    assert out[unit].std() > 0.5


@pytest.mark.parametrize("stretch", STRETCHES)
def test_fitted_images_have_mean_0_and_std_1_per_band_or_over_all(stretch):
    images = _images(70, 3, 8)  # more than one chunk
    raw = torch.from_numpy(images)
    out = fit_preprocess(images, center_crop=None, bin=1, stretch=stretch)(raw).double()
    torch.testing.assert_close(out.mean(dim=(0, 2, 3)), torch.zeros(3).double(), rtol=0, atol=1e-5)
    torch.testing.assert_close(out.std(dim=(0, 2, 3), correction=0), torch.ones(3).double(), rtol=1e-5, atol=0)
    joint = fit_preprocess(images, center_crop=None, bin=1, stretch=stretch, bands="joint")(raw).double()
    assert joint.mean().item() == pytest.approx(0, abs=1e-5)
    assert joint.std(correction=0).item() == pytest.approx(1, rel=1e-5)
    assert joint.mean(dim=(0, 2, 3)).std() > 0.5  # the bands stay different


@pytest.mark.parametrize("stretch", STRETCHES)
def test_joint_treats_all_bands_alike(stretch):
    """Grey stays grey, and exchanging bands exchanges the prepared ones; per band neither holds."""
    images = _lenses(16, 2, 12).astype(np.float32)
    raw = torch.from_numpy(images)
    joint, per_band = (
        fit_preprocess(images, center_crop=None, bin=1, stretch=stretch, bands=bands) for bands in ("joint", "per_band")
    )
    grey = joint(raw[:, :1].expand(-1, 2, -1, -1))
    assert torch.equal(grey[:, 0], grey[:, 1])
    assert torch.equal(joint(raw.flip(1)), joint(raw).flip(1))
    assert (per_band(raw.flip(1)) - per_band(raw).flip(1)).abs().max() > 0.1


@pytest.mark.parametrize("stretch", ["none", "asinh"])
def test_colour_survives_jointly(stretch):
    """The ratio of two bands can be read from a prepared pixel by one rule for all bands, here the fitted inverse."""
    images = _lenses(16, 2, 12).astype(np.float32)
    fitted = fit_preprocess(images, center_crop=None, bin=1, stretch=stretch, bands="joint")
    config = fitted.config()
    for numbers in (config["mean"], config["std"], config["stretch"]["low"], config["stretch"]["scale"]):
        assert numbers[0] == numbers[1]
    one = Stretch(stretch, config["stretch"]["low"][:1], config["stretch"]["scale"][:1])
    prepared = fitted(torch.from_numpy(images))
    blue, red = (one.inverse(prepared[:, [band]] * config["std"][0] + config["mean"][0]) for band in (0, 1))
    bright = images[:, :1] > 0.5
    np.testing.assert_allclose((red / blue).numpy()[bright], (images[:, 1:] / images[:, :1])[bright], rtol=1e-4)


def test_large_offset_leaves_the_scatter_exact():
    rng = np.random.default_rng(1)
    images = (1e6 + rng.integers(-8, 9, size=(40, 1, 8, 8))).astype(np.float32)
    fitted = fit_preprocess(images, center_crop=None, bin=1, stretch="none")
    assert fitted.config()["std"][0] == pytest.approx(images.astype(np.float64).std(), rel=1e-12)


def test_limit_takes_an_even_spread_of_images():
    images = np.zeros((101, 1, 2, 2), dtype=np.float32)
    images[[0, 50, 100], :, 0] = 1.0
    images[[0, 50, 100]] += np.array([1, 2, 6], dtype=np.float32)[:, None, None, None]
    fitted = fit_preprocess(images, center_crop=None, bin=1, stretch="none", limit=3)
    assert fitted.config()["mean"][0] == pytest.approx(3.5)
    assert fitted.config()["sky"] == [2.5]


@pytest.mark.parametrize("stretch", STRETCHES)
@pytest.mark.parametrize("bands", BANDS)
def test_config_rebuilds_the_same_numbers_through_json(stretch, bands):
    images = _images(16, 2, 8)
    policy = PixelPolicy(100.0, 0.2, "crop", (8, 9))
    fitted = fit_preprocess(images, center_crop=6, bin=3, stretch=stretch, bands=bands, policy=policy)
    rebuilt = Preprocess.from_config(json.loads(json.dumps(fitted.config())))
    raw = torch.from_numpy(images)
    assert torch.equal(rebuilt(raw), fitted(raw))
    assert rebuilt.config() == fitted.config()
    assert rebuilt.policy == policy
    assert fitted.state_dict() == {}


@pytest.mark.parametrize("mask_value", [None, 100.0, 0.1])
def test_flagged_pixels_become_the_sky_of_their_channel(mask_value):
    images = _images(16, 2, 8)
    policy = PixelPolicy(mask_value)
    fitted = fit_preprocess(images, center_crop=6, bin=2, stretch="asinh", policy=policy)
    sky = np.median(images, axis=(0, 2, 3))
    assert fitted.config()["sky"] == pytest.approx(sky.tolist(), rel=1e-6)
    raw, expected = torch.from_numpy(images).clone(), torch.from_numpy(images).clone()
    assert torch.equal(fitted(raw), fit_preprocess(images, center_crop=6, bin=2, stretch="asinh")(raw))
    for place, value in (((0, 0, 1, 1), np.nan), ((1, 1, 2, 3), np.inf), ((2, 1, 4, 4), -np.inf), ((3, 0, 6, 6), 100)):
        raw[place] = mask_value or np.nan if value == 100 else value
        expected[place] = float(sky[place[1]])
    assert torch.equal(fitted(raw), fitted(expected))
    assert (fitted(expected) != fitted(torch.from_numpy(images))).sum() == 4  # one binned pixel each
    other = fit_preprocess(images, center_crop=6, bin=2, stretch="asinh", policy=PixelPolicy(7.0))(raw)
    assert torch.equal(other, fitted(expected)) == (mask_value is None)


@pytest.mark.parametrize(
    ("policy", "size"),
    [
        (PixelPolicy(), None),
        (PixelPolicy(sizes="crop"), (10, 12)),
        (PixelPolicy(sizes="pad"), (10, 12)),
        (PixelPolicy(sizes="pad", size=(20, 30)), (20, 30)),
    ],
)
def test_the_policy_keeps_the_size_that_the_images_were_made(policy, size):
    images = np.random.default_rng(0).random((4, 1, 10, 12), np.float32)
    fitted = fit_preprocess(images, center_crop=None, bin=1, stretch="none", policy=policy)
    assert fitted.policy.size == size
    assert fitted.policy.sizes == policy.sizes


def test_bad_sizes_channels_and_names_are_one_line():
    make = Preprocess.plain(1, center_crop=10, bin=4)
    with pytest.raises(InputError, match=r"center_crop=10 exceeds the images of 8x9 px; .* 8 or less"):
        make.output_size(8, 9)
    with pytest.raises(InputError, match=r"bin=4 leaves no pixel of 9x3 px; set bin=3 or less"):
        Preprocess.plain(1, bin=4).output_size(9, 3)
    with pytest.raises(InputError, match=r"of 13x15 px become 3x3 px, but the network takes multiples of 4 px"):
        Preprocess.plain(1, bin=4).fitted(4, None).output_size(13, 15)
    with pytest.raises(InputError, match=r"\(1, 3, 12, 12\) given.*1-channel"):
        make(torch.zeros(1, 3, 12, 12))
    alpha = np.concatenate([_images(4, 1, 4), np.full((4, 1, 4, 4), 255, np.float32)], axis=1)
    for value in (255, 0.1):
        alpha[:, 1] = value
        for stretch in STRETCHES:
            for bands in BANDS:
                with pytest.raises(InputError, match=rf"channel 1 of the images is constant \({value}\); remove it"):
                    fit_preprocess(alpha, center_crop=None, bin=1, stretch=stretch, bands=bands)


def test_a_band_out_of_the_joint_limits_is_one_line():
    images = np.random.default_rng(0).normal(size=(8, 20, 8, 8)).astype(np.float32)
    images[:, 4] += 1000  # a twentieth of the pixels, which zscale takes for outliers
    with pytest.raises(
        InputError, match="channel 4 .* is constant .* lies outside the stretch's limits, set bands=per"
    ):
        fit_preprocess(images, center_crop=None, bin=1, stretch="zscale", bands="joint")


@pytest.mark.parametrize("stretch", STRETCHES)
def test_linear_pixels_are_flux_in_units_and_become_the_same_input(stretch):
    """Flux of two bands, 1e-12 and a hundred times that; the sky and the unit say what a linear pixel is."""
    images = (1e-12 * _lenses(32, 2, 16) * np.array([1, 100])[:, None, None]).astype(np.float32)
    fitted, raw = fit_preprocess(images, center_crop=12, bin=2, stretch=stretch), torch.from_numpy(images)
    linear = fitted.linear(raw)
    assert torch.equal(fitted.stretched(linear), fitted(raw))
    binned = images[..., 2:14, 2:14].reshape(32, 2, 6, 2, 6, 2).mean((3, 5), dtype=np.float64)
    sky = np.median(images, axis=(0, 2, 3)).astype(np.float64)
    above = (linear - fitted.linear_sky[:, None, None]).double().numpy() * fitted.unit.double().numpy()[:, None, None]
    np.testing.assert_allclose(above, binned - sky[:, None, None], atol=1e-5 * binned.max())
    views = fitted.stretched(linear[None].expand(3, -1, -1, -1, -1))  # of views, one more axis in front
    assert torch.equal(views[2], fitted(raw))


@pytest.mark.parametrize(
    ("side", "center_crop", "bin", "multiple", "largest", "first", "out"),
    [
        (101, None, 1, 1, None, 0, 101),
        (101, None, 1, 4, None, 0, 100),
        (102, None, 1, 4, None, 1, 100),
        (103, None, 1, 4, None, 1, 100),
        (101, None, 2, 1, None, 0, 50),
        (101, None, 2, 4, None, 2, 48),  # 96 raw pixels of 101
        (150, 104, 2, 1, None, 23, 52),
        (150, 104, 2, 8, None, 27, 48),
        (150, None, 1, 1, (64, 64), 43, 64),
        (150, None, 1, 5, (64, 64), 45, 60),
        (50, None, 1, 1, (64, 64), 0, 50),
    ],
)
def test_what_a_network_does_not_take_is_cut_around_the_centre(side, center_crop, bin, multiple, largest, first, out):
    """A ramp along each axis says which pixels were kept; before and after JSON."""
    ramp = torch.arange(float(side))
    raw = torch.stack([ramp.expand(side, side), ramp[:, None].expand(side, side)])[None]
    fitted = Preprocess.plain(2, center_crop=center_crop, bin=bin).fitted(multiple, largest)
    again = Preprocess.from_config(json.loads(json.dumps(fitted.config())))
    assert again.config() == fitted.config()
    assert fitted.output_size(side, side) == (out, out)
    expected = first + (bin - 1) / 2 + bin * torch.arange(float(out))
    assert torch.equal(again(raw)[0, 0], expected.expand(out, out))
    assert torch.equal(again(raw)[0, 1], expected[:, None].expand(out, out))


@pytest.mark.parametrize(("center_crop", "bin", "asked", "given"), [(10, 1, 3, 3), (10, 1, 9, 5), (10, 2, 9, 2)])
def test_the_surroundings_of_a_crop_leave_the_crop_itself_as_it_was(center_crop, bin, asked, given):
    raw = torch.randn(2, 1, 20, 23, generator=torch.Generator().manual_seed(0))
    narrow = Preprocess.plain(1, center_crop=center_crop, bin=bin)
    wide, margin = narrow.widened(asked, 20, 23)
    assert margin == given
    assert torch.equal(wide(raw)[..., margin:-margin, margin:-margin], narrow(raw))
    assert Preprocess.plain(1, bin=bin).widened(asked, 20, 23)[1] == 0  # all of the file is the image
