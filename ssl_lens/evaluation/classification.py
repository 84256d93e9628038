"""A network fine-tuned to tell classes apart, and what it says of other images, rotated ones too."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_lens.backbones.backbone import Backbone
from ssl_lens.data.splits import stratified_split
from ssl_lens.evaluation.finetune import Epoch, Examples, Predictor, Trainer, predictor
from ssl_lens.evaluation.protocol import Prediction
from ssl_lens.evaluation.rotation import quarter_turns, spread

VALIDATION_FRACTION = 0.2
MIN_VALIDATION_PER_CLASS = 10  # with fewer images the best epoch would be chosen by chance


def train_classifier(
    trainer: Trainer,
    backbone: Backbone,
    images: Tensor,
    labels: np.ndarray,
    *,
    num_classes: int,
    seed: int,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> Predictor:
    """A classifier (images [B, C, h, w] -> logits [B, num_classes]) trained on these images alone.

    With at least 50 images of every class, a stratified fifth of them is held out, and the weights of the epoch with
    the lowest loss on it are used; with fewer, all train for a fixed number of epochs.

    Args:
        backbone: where to start; it is copied, not changed.
        images: preprocessed, [N, C, h, w], on any device.
        labels: int [N] in 0..num_classes-1.
    Raises: InputError if the backbone cannot take the images, or the loss is not finite.
    """
    torch.manual_seed(seed)  # the head
    network = predictor(backbone, num_classes, trainer.settings.pooling, images[:1])
    examples = Examples(images, torch.from_numpy(labels).to(images.device), *divide_fit(labels, seed))
    loss = partial(F.cross_entropy, reduction="none")
    return trainer.train(network, examples, loss, seed=seed, on_epoch=on_epoch)


def divide_fit(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Images to fit and images to validate, None where there are too few."""
    if np.bincount(labels).min() * VALIDATION_FRACTION < MIN_VALIDATION_PER_CLASS:
        return np.arange(len(labels)), None
    return stratified_split(labels, VALIDATION_FRACTION, seed)


def classify(trainer: Trainer, classifier: Predictor, images: Tensor) -> Prediction:
    """Probabilities of prepared images [M, C, h, w], and how much rotating them changes the logits."""
    logits = trainer.turned_outputs(classifier, images)
    return Prediction(
        logits[0].double().softmax(1).cpu().numpy(),
        classifier.parameter_count,
        spread(logits).mean().item(),
        spread(quarter_turns(logits)).mean().item(),
    )
