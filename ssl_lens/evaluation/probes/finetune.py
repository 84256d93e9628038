"""Supervised training of a whole network, from a pretrained backbone or from scratch, on any number of processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from torch import Tensor

from ssl_lens.evaluation.answers import Answers, Classes, Numbers
from ssl_lens.evaluation.augment import Augmentation, check_augmentation
from ssl_lens.evaluation.probes.fitted_network import FittedNetwork
from ssl_lens.evaluation.probes.from_probe import train_from_probe
from ssl_lens.evaluation.probes.from_scratch import train_from_scratch
from ssl_lens.evaluation.probes.probe import Epoch, NetworkProbe
from ssl_lens.evaluation.probes.trainer import Settings, Trainer, training_processes
from ssl_lens.representation.frozen import FrozenBackbone


class Finetune(NetworkProbe):
    """Trains the whole network, by cross-entropy or a Huber loss (see `objective`).

    A trained backbone goes on from its probe (`train_from_probe`), another from random weights (`train_from_scratch`).
    """

    name = "finetune"
    kinds = (Classes, Numbers)
    repeats = True

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self._trainer: Trainer | None = None

    @property
    def trainer(self) -> Trainer:
        assert self._trainer is not None, "used outside of `ready`"
        return self._trainer

    @contextmanager
    def _training(self) -> Iterator[None]:
        with training_processes(self.settings) as trainer:
            self._trainer, self.device, self.speaks = trainer, trainer.device, trainer.speaks
            yield
        self._trainer = None

    def ready(self) -> AbstractContextManager[None]:
        return self._training()

    def first_process_first(self) -> AbstractContextManager[None]:
        return self.trainer.accelerator.main_process_first()

    def fit(
        self,
        images: Tensor,
        answers: Answers,
        *,
        seed: int,
        frozen: FrozenBackbone,
        trained: bool,
        on_epoch: Callable[[Epoch], None],
    ) -> FittedNetwork:
        """Trains a copy of the backbone under a head on preprocessed images [N, C, h, w].

        Raises: InputError if the images cannot be augmented so, a number is constant, the backbone cannot take the
            images, or the loss is not finite.
        """
        assert isinstance(answers, Classes | Numbers)
        gentle = trained and images.shape[2] == images.shape[3]
        usual: Augmentation = "none" if isinstance(answers, Numbers) else "right-angle" if gentle else "continuous"
        self.trainer.augmentation = self.settings.augmentation or usual
        check_augmentation(self.trainer.augmentation, *images.shape[2:])
        train = train_from_probe if trained else train_from_scratch
        return train(self.trainer, images, answers, seed, frozen, on_epoch)
