"""Keys and draws: repeatable, different where anything differs, and random enough."""

import torch

from ssl_lens.views.randomness import fold_in, image_keys, normal, uniform


def test_draws_depend_on_the_image_not_on_its_batch():
    index = torch.arange(100)
    whole = uniform(image_keys(3, 5, index), 7)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))[:13]
    assert torch.equal(uniform(image_keys(3, 5, index[order]), 7), whole[order])
    assert torch.equal(uniform(image_keys(3, 5, index), 3), whole[:, :3])
    assert torch.equal(normal(image_keys(3, 5, index[order]), 9), normal(image_keys(3, 5, index), 9)[order])


def test_bits_are_splitmix64():
    # the reference generator started at 1234567 (Rosetta Code, "Pseudo-random numbers/Splitmix64")
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    expected = torch.tensor([(bits >> 40) / 2**24 for bits in published])
    assert torch.equal(uniform(torch.tensor(1234567), 4), expected)


def test_seed_epoch_index_and_view_each_change_the_draws():
    keys = [
        fold_in(image_keys(seed, epoch, torch.tensor([index])), view)
        for seed in (0, 1, 2**40)
        for epoch in (0, 1)
        for index in (0, 1, 7)
        for view in (0, 1)
    ]
    assert len(torch.cat(keys).unique()) == len(keys)
    draws = torch.cat([uniform(key, 1) for key in keys])
    assert len(draws.unique()) == len(keys)


def test_uniform_is_uniform():
    draws = uniform(image_keys(0, 0, torch.arange(100_000)), 2)
    assert draws.min() >= 0
    assert draws.max() < 1
    # five standard deviations of the mean and of the variance
    assert abs(draws.mean() - 0.5) < 5 * (1 / 12 / 200_000) ** 0.5
    assert abs(draws.var() - 1 / 12) < 5 * (1 / 180 / 200_000) ** 0.5
    counts = torch.histc(draws, bins=100, min=0, max=1)
    chi_square = ((counts - 2000) ** 2 / 2000).sum()  # mean 99, standard deviation 14
    assert 45 < chi_square < 170


def test_neighbours_are_uncorrelated():
    n = 100_000
    index = torch.arange(n)
    first = uniform(image_keys(0, 0, index), 2)
    pairs = {
        "next image": (first[1:, 0], first[:-1, 0]),
        "next draw": (first[:, 0], first[:, 1]),
        "next epoch": (first[:, 0], uniform(image_keys(0, 1, index), 1)[:, 0]),
        "next seed": (first[:, 0], uniform(image_keys(1, 0, index), 1)[:, 0]),
    }
    for name, pair in pairs.items():
        correlation = torch.corrcoef(torch.stack(pair))[0, 1]
        assert abs(correlation) < 5 / n**0.5, name


def test_normal_is_normal():
    draws = normal(image_keys(0, 0, torch.arange(50)), 4001).double()
    n = draws.numel()
    assert draws.shape == (50, 4001)
    assert abs(draws.mean()) < 5 / n**0.5
    assert abs(draws.var() - 1) < 5 * (2 / n) ** 0.5
    assert abs((draws**4).mean() - 3) < 5 * (96 / n) ** 0.5
    for limit, probability in ((1, 0.317311), (2, 0.045500), (3, 0.002700)):
        spread = (probability / n) ** 0.5
        assert abs((draws.abs() > limit).double().mean() - probability) < 5 * spread
    assert draws.abs().max() < 4.87


def test_noise_is_white():
    noise = normal(image_keys(0, 0, torch.arange(40)), 64 * 64)
    tolerance = 5 / noise.numel() ** 0.5
    assert abs((noise[:, 1:] * noise[:, :-1]).mean()) < tolerance  # neighbouring pixels
    assert abs((noise[:, 64:] * noise[:, :-64]).mean()) < tolerance  # neighbouring rows
    assert abs((noise[:, 2048:] * noise[:, :2048]).mean()) < tolerance  # the two numbers of one hash
    assert abs((noise[1:] * noise[:-1]).mean()) < tolerance  # neighbouring images
