"""What the backbone of a run is worth to a simple classifier, while it trains."""

from __future__ import annotations

import copy

import numpy as np
import torch

from ssl_lens.backbones.backbone import Encoder, FixedFrontBackbone, MapBackbone
from ssl_lens.backbones.lens_wavelets import LensWavelets
from ssl_lens.data.images import ImageSet
from ssl_lens.data.pixels.preprocess import Preprocess, evenly_spaced
from ssl_lens.data.splits import stratified_split
from ssl_lens.representation.extract import extract, fixed_features
from ssl_lens.representation.frozen import MOST_TO_FIT, FrozenBackbone, adapt
from ssl_lens.representation.neighbours import knn_scores
from ssl_lens.representation.pooling_names import Pooling
from ssl_lens.representation.whitening import fit_whitening

PROBE_NEIGHBOURS = 20
PROBE_TEST_FRACTION = 0.2


class OnlineProbe:
    """kNN accuracy of a backbone on a labelled set of its own, never seen by the losses.

    What a network knows of its images' domain is that of the labelled set.

    Args:
        labelled: images and labels, of which a stratified fifth is judged by the others.
        preprocess: of the run, or fitted to these images where the run's are simulated. pooling: of the run.

    Attributes:
        figures: the accuracies that it measures; features are worth the highest.
    """

    figures = ("probe_knn", "probe_knn_whitened")

    def __init__(self, labelled: ImageSet, preprocess: Preprocess, pooling: Pooling, *, seed: int) -> None:
        assert labelled.labels is not None, "the probe needs labels"
        self.preprocess, self.pooling = preprocess, pooling
        self.images, self.names = labelled.images, labelled.names
        self.labels: np.ndarray = labelled.labels
        self.n_classes = len(labelled.classes)
        self.train, self.test = stratified_split(self.labels, PROBE_TEST_FRACTION, seed)
        self._fixed: tuple[np.ndarray, torch.Tensor] | None = None

    @property
    def trials(self) -> int:
        """How many images are judged: an accuracy is a share of them."""
        return len(self.test)

    def measure(self, backbone: Encoder) -> dict[str, float]:
        """`probe_knn`: accuracy in [0, 1] of a 20-nearest-neighbour vote on the held-out fifth.

        `probe_knn_whitened`: the same on whitened features; the training part alone decides how, and shrinkage keeps
        directions along which it hardly varies short.
        """
        assert isinstance(backbone, MapBackbone), "features are pooled from maps"
        own = copy.deepcopy(backbone)
        if isinstance(own, FixedFrontBackbone) and self.pooling in ("view", "joined"):
            return self._judge(self._behind_fixed_front(own))
        adapt(own, self.preprocess, self.images)
        return self._judge(extract(FrozenBackbone(self.preprocess, own, self.pooling), self.images))

    def measure_wavelets(self) -> dict[str, float]:
        """The same of `lens_wavelets`, which nothing trains, and which takes images of any size."""
        wavelets = LensWavelets(self.preprocess.in_channels).to(self.preprocess.mean.device)
        preprocess = self.preprocess.fitted(*wavelets.size_rule)
        return self._judge(extract(FrozenBackbone(preprocess, wavelets, "log_rings"), self.images))

    @torch.no_grad()
    def _behind_fixed_front(self, backbone: FixedFrontBackbone) -> np.ndarray:
        """Features [N, F] of a network whose first part is fixed, which looks at the images once in a run."""
        if self._fixed is None:
            fixed = fixed_features(backbone, self.preprocess, self.images)
            whole = extract(FrozenBackbone(self.preprocess, backbone, self.pooling), self.images)
            self._fixed = whole[:, : -backbone.embed_dim], fixed.to(self.preprocess.mean.device)
        maps, fixed = self._fixed
        backbone.set_domain(fixed[evenly_spaced(len(fixed), MOST_TO_FIT)])
        return np.concatenate([maps, backbone.eval().from_fixed(fixed).view.float().cpu().numpy()], axis=1)

    def _judge(self, features: np.ndarray) -> dict[str, float]:
        train, test = features[self.train], features[self.test]
        whiten = fit_whitening(train)
        return {
            "probe_knn": self._accuracy(train, test),
            "probe_knn_whitened": self._accuracy(*map(whiten, (train, test))),
        }

    def _accuracy(self, train: np.ndarray, test: np.ndarray) -> float:
        neighbours = min(PROBE_NEIGHBOURS, len(train))
        scores = knn_scores(train, self.labels[self.train], test, k=neighbours, num_classes=self.n_classes)
        return float(np.mean(scores.argmax(1) == self.labels[self.test]))
