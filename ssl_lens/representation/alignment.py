"""A linear map of features in which renderings of one lens agree: what they share is the physics."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from ssl_lens.errors import InputError

Keep: TypeAlias = Literal["all", "shared"]

SHRINKAGE = 1e-3  # of the scatter within lenses towards that of a sphere
SIGNIFICANT = 2.0  # standard errors of the correlation of two renderings of lenses that did not choose the direction
FEWEST_LENSES = 20


class Alignment(nn.Module):
    """Standardises features [B, F] and projects them on directions [F, K], the last layer of a backbone.

    Args:
        mean, scale: of the features of the images that the backbone is used on, [F].
        directions: in order of the variance between lenses; that within lenses is 1 along each.
    """

    mean: Tensor
    scale: Tensor
    directions: Tensor

    def __init__(self, mean: Tensor, scale: Tensor, directions: Tensor) -> None:
        super().__init__()
        for name, value in (("mean", mean), ("scale", scale), ("directions", directions)):
            self.register_buffer(name, value)

    def forward(self, features: Tensor) -> Tensor:
        if features.shape[1] != len(self.mean):  # smaller maps have fewer rings
            raise InputError(
                f"the images give {features.shape[1]} features, but the linear map was fitted to {len(self.mean)}; "
                "give images of the size that it was fitted to"
            )
        return ((features.to(self.mean) - self.mean) / self.scale) @ self.directions

    def refitted(self, features: np.ndarray) -> Alignment:
        """The same directions for the features [N, F] of other images, standardised by their own numbers."""
        mean, scale = _standards(features)
        return Alignment(_as_tensor(mean), _as_tensor(scale), self.directions)

    def folded_into(self, head: nn.Linear) -> nn.Linear:
        """A linear head of the features before the map that says what `head` says of those behind it."""
        directions, scale, mean = (value.double().cpu() for value in (self.directions, self.scale, self.mean))
        weight = head.weight.detach().double().cpu() @ directions.T / scale
        folded = nn.Linear(len(mean), head.out_features, dtype=torch.float64)
        with torch.no_grad():
            folded.weight.copy_(weight)
            folded.bias.copy_(head.bias.detach().double().cpu() - weight @ mean)
        return folded


class Fitted(NamedTuple):
    """A fitted map.

    Attributes:
        shared: number of directions that renderings share.
        signal: variance between lenses over that within, of every direction there is, in descending order [F].
        correlation: of two renderings of lenses that were not fitted to, of every direction [F].
    """

    alignment: Alignment
    shared: int
    signal: np.ndarray
    correlation: np.ndarray


def fit_alignment(features: np.ndarray, lenses: np.ndarray, *, keep: Keep = "all", seed: int = 0) -> Fitted:
    """Fits the map to renderings of lenses.

    The directions solve B v = signal W v, with W the scatter within lenses and B that between them. How many are shared
    is decided by lenses that are not fitted to: a random half chooses directions, and as many of them count as have
    renderings that correlate in the other half by two standard errors or more. Then all lenses are fitted to.

    Args:
        features: [M, F].
        lenses: the lens that each row renders [M]; equal numbers are the same lens.
        keep: all directions, or those that are shared alone.

    Raises: InputError for lenses that are too few or have one rendering each.
    """
    names, lens = np.unique(lenses, return_inverse=True)
    counts = np.bincount(lens)
    if counts.min() < 2 or len(names) < FEWEST_LENSES:
        raise InputError(
            f"{len(names)} lenses of {counts.min()} or more renderings given; needed are {FEWEST_LENSES} lenses or "
            "more, of 2 renderings or more each, as simulated with renderings=2"
        )
    mean, scale = _standards(features)
    standard = (features.astype(np.float64) - mean) / scale
    chosen = np.zeros(len(names), bool)
    chosen[np.random.default_rng(seed).permutation(len(names))[: len(names) // 2]] = True
    directions, _ = _directions(standard[chosen[lens]], lens[chosen[lens]])
    correlation = _correlations(standard[~chosen[lens]] @ directions, lens[~chosen[lens]])
    shared = int((correlation * np.sqrt((~chosen).sum()) >= SIGNIFICANT).sum())
    if not shared:
        raise InputError("no direction of the features is shared by the renderings of a lens; give others")
    directions, signal = _directions(standard, lens)
    kept = shared if keep == "shared" else len(signal)
    alignment = Alignment(_as_tensor(mean), _as_tensor(scale), _as_tensor(directions[:, :kept]))
    return Fitted(alignment, shared, signal, correlation)


def _directions(standard: np.ndarray, lens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Directions [F, F] and their signals [F], the strongest first."""
    means, within, renderings = _scatter(standard, lens)
    within = within + SHRINKAGE * np.trace(within) / len(within) * np.eye(len(within))
    between = np.cov(means, rowvar=False) - within / renderings
    whiten = np.linalg.inv(np.linalg.cholesky(within))
    signal, vectors = np.linalg.eigh(whiten @ between @ whiten.T)
    return whiten.T @ vectors[:, ::-1], signal[::-1]


def _correlations(projected: np.ndarray, lens: np.ndarray) -> np.ndarray:
    """Of two renderings of a lens along each direction: the variance between lenses over all of it."""
    means, within, renderings = _scatter(projected, lens)
    noise = np.diag(within)
    between = means.var(axis=0, ddof=1) - noise / renderings
    return between / np.where(between + noise > 0, between + noise, 1.0)


def _scatter(rows: np.ndarray, lens: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean of every lens [L, F], the covariance within lenses [F, F], and how many renderings a mean is of."""
    _, lens = np.unique(lens, return_inverse=True)
    counts = np.bincount(lens)
    means = np.zeros((len(counts), rows.shape[1]))
    np.add.at(means, lens, rows)
    means /= counts[:, None]
    rest = rows - means[lens]
    return means, rest.T @ rest / (len(rows) - len(counts)), float(1 / (1 / counts).mean())


def _standards(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean, std = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    return mean, np.where(std > 0, std, 1.0)


def _as_tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).float()
