import numpy as np
import pytest

from ssl_lens.data.formats.sample import UnusableImage
from ssl_lens.data.pixels.policy import PixelPolicy, apply_policy, fill_flagged, fit_size
from ssl_lens.errors import InputError

_IMAGE = np.random.default_rng(0).normal(size=(2, 20, 20)).astype(np.float32) * np.float32(1e-12)


def test_flagged_pixels_take_the_median_of_the_good_ones_of_their_channel():
    image = _IMAGE.copy()
    image[0, :2, :3] = 100
    image[0, 5, 5], image[1, 6, 6], image[1, 7, 7] = np.nan, np.inf, -np.inf
    good = np.isfinite(image) & (image != 100)
    filled, count = fill_flagged(image, PixelPolicy(mask_value=100))
    assert count == 9
    assert filled.dtype == np.float32
    np.testing.assert_array_equal(filled[good], image[good])
    for channel in range(2):
        expected = np.median(image[channel][good[channel]])
        assert 0 < abs(expected) < 1e-12
        np.testing.assert_array_equal(filled[channel][~good[channel]], expected)
    assert np.isnan(image[0, 5, 5]), "the input stays as it is"


def test_a_clean_image_is_passed_on():
    filled, count = fill_flagged(_IMAGE, PixelPolicy(mask_value=100))
    assert filled is _IMAGE
    assert count == 0


def test_a_mask_value_that_float32_rounds():
    image = _IMAGE.copy()
    image[0, 0, 0] = 0.1
    assert fill_flagged(image, PixelPolicy(mask_value=0.1))[1] == 1


@pytest.mark.parametrize("bad", [np.nan, 100])
def test_too_many_flagged_pixels_of_one_channel_make_an_image_unusable(bad):
    image = _IMAGE.copy()
    image[1].flat[:40] = bad
    policy = PixelPolicy(mask_value=100)
    assert fill_flagged(image, policy)[1] == 40  # exactly 10 % of the channel
    image[1].flat[40] = bad
    with pytest.raises(UnusableImage, match="41 of 800 pixels are NaN, infinite or 100"):
        fill_flagged(image, policy)
    with pytest.raises(UnusableImage, match="1 of 800 pixels are NaN or infinite"):
        fill_flagged(np.where(np.arange(800).reshape(2, 20, 20) == 7, np.nan, _IMAGE), PixelPolicy(max_masked=0))


def test_cropping_keeps_the_centre():
    image = np.arange(2 * 21 * 20, dtype=np.float32).reshape(2, 21, 20)
    np.testing.assert_array_equal(fit_size(image, 11, 10), image[:, 5:16, 5:15])
    np.testing.assert_array_equal(fit_size(image, 10, 20), image[:, 5:15])
    assert fit_size(image, 10, 10).flags.c_contiguous
    np.testing.assert_array_equal(fit_size(image, 21, 20), image)


def test_padding_surrounds_with_the_median_of_each_channel():
    image = np.arange(2 * 5 * 4, dtype=np.float32).reshape(2, 5, 4)
    padded = fit_size(image, 9, 7)
    np.testing.assert_array_equal(padded[:, 2:7, 1:5], image)
    outside = np.ones((9, 7), bool)
    outside[2:7, 1:5] = False
    assert (padded[0][outside] == 9.5).all()
    assert (padded[1][outside] == 29.5).all()


def test_one_axis_cropped_and_the_other_padded():
    image = np.arange(2 * 5 * 4, dtype=np.float32).reshape(2, 5, 4)
    fitted = fit_size(image, 3, 6)
    np.testing.assert_array_equal(fitted[:, :, 1:5], image[:, 1:4])
    assert (fitted[:, :, 0] == fitted[:, :, 5]).all()


def test_what_is_usable():
    image = _IMAGE.copy()
    image[0, 5, 5] = np.nan
    done, filled = apply_policy(image, PixelPolicy(sizes="crop", size=(10, 12)))
    assert (done.shape, filled) == ((2, 10, 12), 1)
    np.testing.assert_array_equal(done[1], _IMAGE[1, 5:15, 4:16])
    with pytest.raises(UnusableImage, match="constant: every pixel is 3"):
        apply_policy(np.full((1, 4, 4), 3, np.float32), PixelPolicy())
    with pytest.raises(UnusableImage, match="20x20 pixels but size=21x5 to crop to; give a smaller size"):
        apply_policy(image, PixelPolicy(sizes="crop", size=(21, 5)))
    with pytest.raises(UnusableImage, match="20x20 pixels but size=21x5 to pad to; give a larger size"):
        apply_policy(image, PixelPolicy(sizes="pad", size=(21, 5)))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"sizes": "stretch"}, "sizes='stretch' is unknown; set it to refuse, crop or pad"),
        ({"max_masked": 1.0}, "max_masked=1.0 is not a fraction"),
        ({"size": (64, 64)}, "size=64x64 with sizes='refuse'; give"),
        ({"planes": ("VIS", -1)}, r"planes=\['VIS', -1\] is not a list of names and numbers from 0"),
        ({"noise": ("",)}, r"noise=\[''\] is not a list"),
        ({"size": (9, 0), "sizes": "pad"}, "size=9x0 with sizes='pad'; give 1 or more"),
    ],
)
def test_impossible_policies(arguments, reason):
    with pytest.raises(InputError, match=reason):
        PixelPolicy(**arguments)


def test_policies_have_keys_of_their_own():
    policies = [PixelPolicy(), PixelPolicy(100), PixelPolicy(None, 0.2), PixelPolicy(sizes="crop")]
    policies += [PixelPolicy(sizes="pad"), PixelPolicy(sizes="crop", size=(64, 48))]
    policies += [
        PixelPolicy(mask=("VIS",)),
        PixelPolicy(planes=("VIS",)),
        PixelPolicy(planes=(1,)),
        PixelPolicy(noise=("VIS",)),
    ]
    assert len({policy.key() for policy in policies}) == 10
