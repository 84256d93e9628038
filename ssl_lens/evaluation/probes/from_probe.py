"""A trained backbone goes on training from its probe, for as long as images that are left out say that it pays."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import numpy as np
from sklearn.model_selection import KFold, StratifiedKFold
from torch import Tensor

from ssl_lens.backbones.backbone import FixedFrontBackbone
from ssl_lens.evaluation.answers import Classes, Numbers
from ssl_lens.evaluation.probes.fitted_network import FittedNetwork
from ssl_lens.evaluation.probes.linear import LinearClassifier
from ssl_lens.evaluation.probes.objective import Objective, objective
from ssl_lens.evaluation.probes.probe import Epoch
from ssl_lens.evaluation.probes.probe_network import (
    ProbeNetwork,
    fixed_inputs,
    layer_groups,
    probe_network,
)
from ssl_lens.evaluation.probes.ridge import LinearRegressor, Ridge
from ssl_lens.evaluation.probes.trainer import Trainer
from ssl_lens.representation.frozen import FrozenBackbone

LR = 1e-4
STEPS, FEWEST_EPOCHS, MOST_EPOCHS = 500, 5, 20  # about so many steps, in so many epochs, unless the settings say
FOLDS = 5
FEWEST = 50  # images: of fewer none is left out, as they would tell by chance
ENOUGH_JUDGED = 400  # images that were left out; no further fold is needed then
SIGNIFICANT = 2.0  # standard errors by which training must gain
FEW_IMAGES = 16  # that show whether turns matter
SAME = 1e-4  # of the largest feature: differences of turned images below are rounding

logger = logging.getLogger(__name__)


def train_from_probe(
    trainer: Trainer,
    images: Tensor,
    answers: Classes | Numbers,
    seed: int,
    frozen: FrozenBackbone,
    on_epoch: Callable[[Epoch], None],
) -> FittedNetwork:
    """Trains a copy of a backbone under the ridge probe of its features, on preprocessed images [N, C, h, w].

    The same training is first tried on four fifths of the images, and judged on the others after every epoch; in turn,
    until all or 400 have been left out. The epoch after which their loss was the lowest is when the training on all
    images ends. Where it gains less than two standard errors over the probe, or errs no less, or there are fewer than
    50 images, the network is the probe.

    Raises: InputError if a number is constant, the backbone cannot take the images, or the loss is not finite.
    """
    tuning = _Tuning(trainer, images, answers, seed, frozen)
    curves = [tuning.left_out(fit, judged) for fit, judged in folds(answers, seed)]
    if not curves:
        logger.info("%d images are too few to leave some out; the probe is kept", len(images))
        return tuning.fitted(0, None)
    for epochs in zip(*(notes for notes, _ in curves), strict=True):
        trained, judged = (float(np.mean(each)) for each in zip(*(epoch[2:] for epoch in epochs), strict=True))
        on_epoch(epochs[0]._replace(train_loss=trained, validation_loss=judged))
    losses, errors = np.concatenate([judged for _, judged in curves], axis=2).transpose(1, 0, 2)
    epoch = best_epoch(losses, errors)
    verdict = f"training stops after epoch {epoch}" if epoch else "the probe is kept"
    mean = losses.mean(axis=1)
    logger.info(
        "seed %d: loss of images left out %.4g by the probe, %.4g tuned: %s", seed, mean[0], mean[1:].min(), verdict
    )
    return tuning.fitted(epoch, float(mean[epoch]))


class _Tuning:
    """Trainings of one backbone on parts of the same images."""

    def __init__(
        self, trainer: Trainer, images: Tensor, answers: Classes | Numbers, seed: int, frozen: FrozenBackbone
    ) -> None:
        self.trainer, self.answers, self.seed, self.frozen = trainer, answers, seed, frozen.to(trainer.device)
        self.goal: Objective = objective(answers, np.arange(len(images)))
        self.inputs = images
        if isinstance(frozen.backbone, FixedFrontBackbone):  # which sees each image once
            self.inputs = trainer.applied(lambda batch: fixed_inputs(frozen, batch), images)
            fixed = trainer.applied(frozen.backbone.fixed_features, images[:1]).shape[1]
            measured = self.inputs[:, :-fixed]
            features = measured if frozen.alignment is None else frozen.alignment(measured)
        else:
            features = trainer.applied(lambda batch: frozen.represent(batch).features.float(), images)
        self.features = features.cpu().numpy()
        turned = self.inputs.ndim == 4 and images.shape[2] == images.shape[3] and trainer.augmentation != "none"
        self.turns = turned and self._turns_matter(images)

    def left_out(self, fit: np.ndarray, judged: np.ndarray) -> tuple[list[Epoch], np.ndarray]:
        """Every epoch of training on the images at `fit`, from the probe on; [epochs + 1, 2, n] of those judged."""
        found, notes = [], []
        for epoch, network in self._epochs(fit):
            found.append(self.trainer.judged(network, self.inputs, self.goal, judged))
            notes.append(epoch._replace(validation_loss=float(found[-1][0].mean())))
        return notes, np.stack(found)

    def fitted(self, epoch: int, loss: float | None) -> FittedNetwork:
        """The network of all images after an epoch; of 0 the probe."""
        everything = np.arange(len(self.inputs))
        network = next(current for note, current in self._epochs(everything) if note.epoch == epoch)
        return FittedNetwork(network.predictor(), self.trainer.predict, self.goal.outputs, loss)

    def _epochs(self, fit: np.ndarray) -> Iterator[tuple[Epoch, ProbeNetwork]]:
        """The probe of the images at `fit`, as epoch 0, and what training on them makes of it."""
        trainer, settings = self.trainer, self.trainer.settings
        probe = Ridge().fit(self.features[fit], self.answers.subset(fit), seed=self.seed)
        assert isinstance(probe, LinearClassifier | LinearRegressor)
        network = probe_network(self.frozen, probe, self.goal).to(trainer.device).eval()
        yield Epoch(0, 0.0, float(trainer.judged(network, self.inputs, self.goal, fit)[0].mean()), None), network
        network.quarter_turns = self.turns
        count = trainer.number_of_epochs(len(self.inputs), steps=STEPS, fewest=FEWEST_EPOCHS, most=MOST_EPOCHS)
        yield from trainer.epochs(
            network,
            layer_groups(network, settings.weight_decay),
            self.inputs,
            self.goal,
            fit,
            count=count,
            lr=settings.lr or LR,
            seed=self.seed,
            averaged=True,
        )

    def _turns_matter(self, images: Tensor) -> bool:
        """Whether a quarter turn changes what is measured of a few images."""
        few = images[:FEW_IMAGES]
        before, after = (
            self.trainer.applied(lambda batch: self.frozen.represent(batch).features.float(), each)
            for each in (few, few.rot90(1, (-2, -1)))
        )
        return bool((before - after).abs().max() > SAME * before.abs().max())


def folds(answers: Classes | Numbers, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images to fit and images left out, in turn, until enough have been; none where there are too few."""
    values, parts, kind = (
        (answers.labels, min(FOLDS, int(np.bincount(answers.labels).min())), StratifiedKFold)
        if isinstance(answers, Classes)
        else (answers.values, FOLDS, KFold)
    )
    if len(values) < FEWEST or parts < 2:
        return []
    found = kind(parts, shuffle=True, random_state=seed).split(values, values)
    used: list[tuple[np.ndarray, np.ndarray]] = []
    for fit, judged in found:
        used.append((fit, judged))
        if sum(len(each) for _, each in used) >= ENOUGH_JUDGED:
            break
    return used


def best_epoch(losses: np.ndarray, errors: np.ndarray) -> int:
    """The epoch of the lowest mean loss of N images left out; 0, the probe, if it gains too little.

    It must gain more than two standard errors of the differences from the probe, image by image, and err less: the loss
    alone falls as well where a network is only more certain of what the probe said.

    Shapes: both [epochs + 1, N].
    """
    better = np.flatnonzero(errors.mean(axis=1) < errors[0].mean())
    if not len(better):
        return 0
    best = int(better[losses[better].mean(axis=1).argmin()])
    gain = losses[0] - losses[best]
    return best if gain.mean() > SIGNIFICANT * gain.std(ddof=1) / len(gain) ** 0.5 else 0
