"""A network trained from random weights, under the head of its authors."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor

from ssl_lens.evaluation.answers import Classes, Numbers
from ssl_lens.evaluation.probes.fitted_network import FittedNetwork
from ssl_lens.evaluation.probes.objective import divided, objective
from ssl_lens.evaluation.probes.probe import Epoch
from ssl_lens.evaluation.probes.trainer import Trainer
from ssl_lens.optim import parameter_groups
from ssl_lens.representation.frozen import FrozenBackbone
from ssl_lens.representation.predictor import fresh_predictor

LR = 5e-4
STEPS, FEWEST_EPOCHS, MOST_EPOCHS = 3000, 10, 100  # about so many steps, in so many epochs, unless the settings say


def train_from_scratch(
    trainer: Trainer,
    images: Tensor,
    answers: Classes | Numbers,
    seed: int,
    frozen: FrozenBackbone,
    on_epoch: Callable[[Epoch], None],
) -> FittedNetwork:
    """Trains a copy of a backbone under a fresh head on preprocessed images [N, C, h, w].

    A fifth of at least 50 images (of each class) validates: the weights of the epoch with the lowest loss are used.
    Where there are fewer, all train for the number of epochs of the settings.

    Raises: InputError if a number is constant, the backbone cannot take the images, or the loss is not finite.
    """
    settings = trainer.settings
    fit, validation = divided(answers, seed)
    goal = objective(answers, fit)
    torch.manual_seed(seed)  # the head
    network = fresh_predictor(frozen.backbone, goal.num_outputs, settings.pooling or "view", images[:1])
    network = network.to(trainer.device)
    result = copy.deepcopy(network)  # without what Accelerate puts around the one that trains
    groups = parameter_groups(network)
    groups[0]["weight_decay"] = settings.weight_decay
    count = trainer.number_of_epochs(len(fit), steps=STEPS, fewest=FEWEST_EPOCHS, most=MOST_EPOCHS)
    epochs = trainer.epochs(network, groups, images, goal, fit, count=count, lr=settings.lr or LR, seed=seed)
    best_loss, best_epoch, best_state = math.inf, 0, None
    for epoch, current in epochs:
        loss = None
        if validation is not None:
            loss = float(trainer.judged(current, images, goal, validation)[0].mean())
        on_epoch(epoch._replace(validation_loss=loss))
        if loss is None:
            continue
        if loss < best_loss:
            best_loss, best_epoch, best_state = loss, epoch.epoch, copy.deepcopy(current.state_dict())
        elif epoch.epoch - best_epoch >= settings.patience:
            break
    result.load_state_dict(best_state or current.state_dict())
    return FittedNetwork(result.eval(), trainer.predict, goal.outputs, None if validation is None else best_loss)
