"""What a probe is: something fitted to features or images and their answers, which then answers for others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ssl_lens.evaluation.answers import Answers
from ssl_lens.representation.frozen import FrozenBackbone

Inputs = TypeVar("Inputs", np.ndarray, Tensor)
Map = Callable[[np.ndarray], np.ndarray]


class Fitted(ABC, Generic[Inputs]):
    """A fitted probe.

    Attributes:
        parameters: trained numbers, where that says something of the model.
        validation_loss: by which the best of several seeds may be chosen; None: nothing was held out.
    """

    parameters: int | None = None
    validation_loss: float | None = None

    @abstractmethod
    def predict(self, inputs: Inputs) -> np.ndarray:
        """Class probabilities [M, C], numbers [M, T], or how unusual images are [M, 1]."""

    def outputs(self, inputs: Inputs) -> np.ndarray:
        """The same before a softmax, where there is one: what rotations of the image should leave as it is."""
        return self.predict(inputs)

    def head(self) -> nn.Module | None:
        """What turns features into `outputs`, to be saved with a backbone; None where that is no small module."""
        return None


class Probe(ABC):
    """What all probes say of themselves.

    Attributes:
        name: in the table.
        kinds: the answers that it learns; none for what needs no fit.
        repeats: whether another seed gives another result on the same images.
    """

    name: str
    kinds: ClassVar[tuple[type, ...]]
    repeats: ClassVar[bool] = False

    def ready(self) -> AbstractContextManager[Any]:
        """Held while the probe is used."""
        return nullcontext()


class FeatureProbe(Probe):
    """Fitted to features of frozen backbones."""

    uses_features: ClassVar[bool] = True  # False: answers alone

    @abstractmethod
    def fit(self, features: np.ndarray, answers: Answers, *, seed: int) -> Fitted[np.ndarray]:
        """Learns the answers of N images from their features [N, F]."""

    def map(self, pool: np.ndarray) -> Map:
        """A map of features that all training images [P, F], with answers or without, decide; by default none."""
        return lambda features: features


class Epoch(NamedTuple):
    """What is known after an epoch of training, counted from 1; losses are means over images, lr is of its last step.

    Epoch 0 is the probe that training begins from.
    """

    epoch: int
    lr: float
    train_loss: float
    validation_loss: float | None


class NetworkProbe(Probe):
    """Fitted to images by training a whole network, on one or several processes.

    Attributes:
        device: where it trains.
        speaks: whether this process is the one that prints and writes.
    """

    device: torch.device
    speaks: bool

    @abstractmethod
    def first_process_first(self) -> AbstractContextManager[None]:
        """Within, the other processes wait for the first."""

    @abstractmethod
    def fit(
        self,
        images: Tensor,
        answers: Answers,
        *,
        seed: int,
        frozen: FrozenBackbone,
        trained: bool,
        on_epoch: Callable[[Epoch], None],
    ) -> Fitted[Tensor]:
        """Trains a copy of a backbone under a head on preprocessed images [N, C, h, w].

        Args:
            frozen: the backbone, with the features that are measured of it.
            trained: whether its weights have been trained, or are random.
        """
