"""What the backbone of a run is worth to a simple classifier, while it trains."""

from __future__ import annotations

import copy

import numpy as np

from ssl_lens.backbones.backbone import Encoder, MapBackbone
from ssl_lens.data.images import ImageSet
from ssl_lens.data.pixels.preprocess import Preprocess
from ssl_lens.data.splits import stratified_split
from ssl_lens.representation.extract import extract
from ssl_lens.representation.frozen import FrozenBackbone, adapt
from ssl_lens.representation.neighbours import knn_scores
from ssl_lens.representation.pooling_names import Pooling

PROBE_NEIGHBOURS = 20
PROBE_TEST_FRACTION = 0.2


class OnlineProbe:
    """kNN accuracy of a backbone on a labelled set of its own, never seen by the losses.

    What a network knows of its images' domain is that of the labelled set.

    Args:
        labelled: images and labels, of which a stratified fifth is judged by the others.
        preprocess: of the run, or fitted to these images where the run's are simulated. pooling: of the run.
    """

    def __init__(self, labelled: ImageSet, preprocess: Preprocess, pooling: Pooling, *, seed: int) -> None:
        assert labelled.labels is not None, "the probe needs labels"
        self.preprocess, self.pooling = preprocess, pooling
        self.images, self.names = labelled.images, labelled.names
        self.labels: np.ndarray = labelled.labels
        self.n_classes = len(labelled.classes)
        self.train, self.test = stratified_split(self.labels, PROBE_TEST_FRACTION, seed)

    def measure(self, backbone: Encoder) -> dict[str, float]:
        """`probe_knn`: accuracy in [0, 1] of a 20-nearest-neighbour vote on the held-out fifth."""
        assert isinstance(backbone, MapBackbone), "features are pooled from maps"
        own = copy.deepcopy(backbone)
        adapt(own, self.preprocess, self.images)
        frozen = FrozenBackbone(self.preprocess, own, self.pooling)
        features = extract(frozen, self.images, batch_size=256)
        neighbours = min(PROBE_NEIGHBOURS, len(self.train))
        scores = knn_scores(
            features[self.train], self.labels[self.train], features[self.test], k=neighbours, num_classes=self.n_classes
        )
        return {"probe_knn": float(np.mean(scores.argmax(1) == self.labels[self.test]))}
