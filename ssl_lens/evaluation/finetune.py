"""Supervised training of a whole network on labelled images: from a pretrained backbone or from scratch."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from ssl_lens.data.splits import stratified_split
from ssl_lens.engine.optim import adamw
from ssl_lens.engine.schedules import cosine
from ssl_lens.errors import InputError
from ssl_lens.evaluation.augment import Augmentation, augment
from ssl_lens.evaluation.features import Pooling, pooled
from ssl_lens.models.backbone import Backbone

VALIDATION_FRACTION = 0.2
MIN_VALIDATION_PER_CLASS = 10  # with fewer images the best epoch would be chosen by chance
AUTO_STEPS = 3000  # epochs=None: about this many steps ...
AUTO_EPOCHS = (10, 100)  # ... within these numbers of epochs


@dataclass(frozen=True)
class Settings:
    """How a network is trained.

    Attributes:
        epochs: length of the cosine schedule; None for about 3,000 steps, at least 10 and at most 100 epochs.
        patience: stop after this many epochs without a lower validation loss.
        bf16: run the network under bfloat16 autocast; the loss stays in float32.
    """

    pooling: Pooling = "view"
    epochs: int | None = None
    batch_size: int = 64
    lr: float = 5e-4
    weight_decay: float = 0.05
    clip_norm: float = 3.0
    patience: int = 20
    augmentation: Augmentation = "continuous"
    bf16: bool = False


class Classifier(nn.Module):
    """A linear layer on normalised pooled features: images [B, C, H, W] -> logits [B, num_classes]."""

    def __init__(self, backbone: Backbone, num_features: int, num_classes: int, pooling: Pooling) -> None:
        super().__init__()
        self.backbone, self.pooling = backbone, pooling
        self.norm = nn.LayerNorm(num_features)
        self.head = nn.Linear(num_features, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.norm(pooled(self.backbone, images, self.pooling)))


def finetuned_probabilities(
    backbone: Backbone,
    train_images: Tensor,
    train_labels: np.ndarray,
    test_images: Tensor,
    *,
    num_classes: int,
    settings: Settings,
    seed: int,
) -> np.ndarray:
    """Class probabilities of the test images by a classifier trained on the training images alone.

    With at least 50 images of every class, a stratified fifth of the training images is held out, and the weights of
    the epoch with the lowest loss on it are used; with fewer, all train for a fixed number of epochs.

    Args:
        backbone: where to start; it is copied, not changed.
        train_images, test_images: preprocessed images [N, C, h, w] and [M, C, h, w], on any device.
        train_labels: int [N] in 0..num_classes-1.
    Returns: float64 [M, num_classes].
    Raises: InputError if the loss is not finite.
    """
    torch.manual_seed(seed)  # head and drop path; batches and augmentation have generators of their own
    device = next(backbone.parameters()).device
    backbone = copy.deepcopy(backbone).requires_grad_(True)
    with torch.no_grad():
        num_features = pooled(backbone.eval(), train_images[:1].to(device), settings.pooling).shape[1]
    classifier = Classifier(backbone, num_features, num_classes, settings.pooling).to(device)

    fit, validation = _divide(train_labels, seed)
    labels = torch.from_numpy(train_labels)
    _train(classifier, train_images, labels, fit, validation, settings, seed)
    return _predict(classifier, test_images, settings).double().softmax(1).cpu().numpy()


def _divide(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Images to fit and images to validate, None where there are too few."""
    if np.bincount(labels).min() * VALIDATION_FRACTION < MIN_VALIDATION_PER_CLASS:
        return np.arange(len(labels)), None
    return stratified_split(labels, VALIDATION_FRACTION, seed)


def _train(
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    fit: np.ndarray,
    validation: np.ndarray | None,
    settings: Settings,
    seed: int,
) -> None:
    device = next(classifier.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    steps_per_epoch = math.ceil(len(fit) / settings.batch_size)
    epochs = settings.epochs or min(max(AUTO_STEPS // steps_per_epoch, AUTO_EPOCHS[0]), AUTO_EPOCHS[1])
    learning_rates = iter(cosine(settings.lr, 0.0, epochs, steps_per_epoch, warmup_epochs=epochs // 10))
    optimizer = adamw(classifier)
    optimizer.param_groups[0]["weight_decay"] = settings.weight_decay
    best_loss, best_epoch, best_state = math.inf, 0, None
    progress = tqdm(range(epochs), desc=f"seed {seed}", unit="epoch", leave=False, disable=None)
    for epoch in progress:
        classifier.train()
        for batch in torch.from_numpy(fit)[torch.randperm(len(fit), generator=generator)].split(settings.batch_size):
            views = augment(images[batch].to(device), settings.augmentation, generator)
            with torch.autocast(device.type, torch.bfloat16, enabled=settings.bf16):
                logits = classifier(views)
            loss = F.cross_entropy(logits.float(), labels[batch].to(device))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(classifier.parameters(), settings.clip_norm)
            lr = next(learning_rates)
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
        if not torch.isfinite(loss):
            raise InputError(f"the loss became {loss.item()} in epoch {epoch}; lower --lr={settings.lr}")
        if validation is None:
            continue
        logits = _predict(classifier, images[validation], settings)
        validation_loss = F.cross_entropy(logits, labels[validation].to(device)).item()
        progress.set_postfix(validation_loss=f"{validation_loss:.4f}")
        if validation_loss < best_loss:
            best_loss, best_epoch = validation_loss, epoch
            best_state = copy.deepcopy(classifier.state_dict())
        elif epoch - best_epoch >= settings.patience:
            break
    if best_state is not None:
        classifier.load_state_dict(best_state)


@torch.inference_mode()
def _predict(classifier: Classifier, images: Tensor, settings: Settings) -> Tensor:
    """Logits float32 [M, num_classes] in evaluation mode."""
    classifier.eval()
    device = next(classifier.parameters()).device
    logits = []
    for batch in images.split(4 * settings.batch_size):
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.bf16):
            logits.append(classifier(batch.to(device)).float())
    return torch.cat(logits)
