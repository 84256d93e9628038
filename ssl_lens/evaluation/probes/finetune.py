"""Supervised training of a whole network, from a pretrained backbone or from scratch, on any number of processes."""

from __future__ import annotations

import copy
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from joblib import cpu_count
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from tqdm import tqdm

from ssl_lens.backbones.backbone import MapBackbone
from ssl_lens.errors import InputError
from ssl_lens.evaluation.answers import Answers, Classes, Numbers
from ssl_lens.evaluation.augment import Augmentation, augment, check_augmentation
from ssl_lens.evaluation.probes.objective import Objective, objective
from ssl_lens.evaluation.probes.probe import Fitted, NetworkProbe
from ssl_lens.optim import adamw
from ssl_lens.representation.pooling_names import Pooling
from ssl_lens.representation.predictor import Outputs, Predictor, Targets, fresh_predictor
from ssl_lens.schedules import cosine

logger = logging.getLogger(__name__)

AUTO_STEPS = 3000  # epochs=None: about this many steps ...
AUTO_EPOCHS = (10, 100)  # ... within these numbers of epochs
WARMUP = 0.1  # of the steps
SECONDS_BETWEEN_LINES = 30.0  # at least, where there is no terminal for a progress bar


@dataclass(frozen=True)
class Settings:
    """How a network is trained; batch_size counts images over all processes.

    Attributes:
        epochs: length of the cosine schedule; None for about 3,000 steps, at least 10 and at most 100 epochs.
        patience: stop after this many epochs without a lower validation loss.
        augmentation: None for continuous where classes are learned, and none for numbers, as only you know which
            number, such as a mass, stays when the image is turned.
        bf16: train under bfloat16 autocast; losses and predictions stay in float32.
    """

    pooling: Pooling = "view"
    epochs: int | None = None
    batch_size: int = 64
    lr: float = 5e-4
    weight_decay: float = 0.05
    clip_norm: float = 3.0
    patience: int = 20
    augmentation: Augmentation | None = None
    bf16: bool = False


class Epoch(NamedTuple):
    """What is known after an epoch, counted from 1; losses are means over images, lr is that of its last step."""

    epoch: int
    lr: float
    train_loss: float
    validation_loss: float | None


@dataclass
class FittedNetwork(Fitted[Tensor]):
    """A trained network; its inputs are preprocessed images [M, C, h, w]."""

    trainer: Trainer
    network: Predictor
    meaning: Outputs
    validation_loss: float | None
    parameters: int | None = None

    def predict(self, inputs: Tensor) -> np.ndarray:
        if isinstance(self.meaning, Targets):
            return self.outputs(inputs)
        return self.meaning.values(self.trainer.predict(self.network, inputs))

    def outputs(self, inputs: Tensor) -> np.ndarray:
        """Logits; of numbers themselves, of logarithms the decades."""
        outputs = self.trainer.predict(self.network, inputs).double().cpu().numpy()
        if isinstance(self.meaning, Targets):
            outputs = np.array(self.meaning.mean) + np.array(self.meaning.std) * outputs
        return outputs


class Finetune(NetworkProbe):
    """Trains the whole network, by cross-entropy or a Huber loss (see `objective`).

    The weights of the epoch with the lowest validation loss are used; where images are too few to validate, all train
    for a fixed number of epochs.
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
        self, images: Tensor, answers: Answers, *, seed: int, backbone: MapBackbone, on_epoch: Callable[[Epoch], None]
    ) -> FittedNetwork:
        """Trains a copy of the backbone under a head on preprocessed images [N, C, h, w].

        Raises: InputError if the images cannot be augmented so, a number is constant, the backbone cannot take the
            images, or the loss is not finite.
        """
        self.trainer.augmentation = self.settings.augmentation or (
            "none" if isinstance(answers, Numbers) else "continuous"
        )
        check_augmentation(self.trainer.augmentation, *images.shape[2:])
        goal = objective(answers, seed)
        torch.manual_seed(seed)  # the head
        network = fresh_predictor(backbone, goal.num_outputs, self.settings.pooling, images[:1])
        losses: list[float] = []

        def note(epoch: Epoch) -> None:
            on_epoch(epoch)
            if epoch.validation_loss is not None:
                losses.append(epoch.validation_loss)

        network = self.trainer.train(network, images, goal, seed=seed, on_epoch=note)
        return FittedNetwork(
            self.trainer, network, goal.outputs, min(losses) if losses else None, network.parameter_count
        )


class Trainer:
    """Trains networks and applies them, with one set of settings, on all processes at once.

    The images of a step do not depend on the number of processes, of which each takes an equal share. With batch norm,
    GPUs share the statistics of a step; processors normalise their own shares and average the running statistics.
    """

    def __init__(self, accelerator: Accelerator, settings: Settings) -> None:
        self.accelerator, self.settings = accelerator, settings
        self.augmentation: Augmentation = settings.augmentation or "continuous"
        self.device = accelerator.device
        self.speaks = accelerator.is_main_process  # prints, writes

    def train(
        self, network: Predictor, images: Tensor, goal: Objective, *, seed: int, on_epoch: Callable[[Epoch], None]
    ) -> Predictor:
        """The network with the weights of its best epoch on the validation part, or of its last where there is none.

        Args:
            network: is changed; the one returned is a copy in plain float32.
            images: preprocessed, [N, C, h, w], on any device.
            seed: decides batches, augmentation and drop path.
            on_epoch: is called after every epoch, on every process.

        Raises: InputError if the loss is not finite.
        """
        accelerator, settings = self.accelerator, self.settings
        result = copy.deepcopy(network).to(self.device)  # without what Accelerate puts around the one that trains
        if accelerator.num_processes > 1 and self.device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        network = network.to(self.device)
        optimizer = adamw(network)
        optimizer.param_groups[0]["weight_decay"] = settings.weight_decay
        parallel, optimizer = accelerator.prepare(network, optimizer)
        torch.manual_seed(seed + accelerator.process_index)  # drop path: other images, other masks

        generator = torch.Generator().manual_seed(seed)
        learning_rates = _learning_rates(settings, len(goal.fit))
        best_loss, best_epoch, best_state = math.inf, 0, None
        quiet = None if self.speaks else True
        spoken = time.monotonic()
        progress = tqdm(range(len(learning_rates)), desc=f"seed {seed}", unit="epoch", leave=False, disable=quiet)
        for epoch in progress:
            train_loss = self._epoch(parallel, optimizer, images, goal, learning_rates[epoch], generator)
            if not math.isfinite(train_loss):
                raise InputError(f"the loss became {train_loss} in epoch {epoch + 1}; lower lr={settings.lr}")
            validation_loss = self._validate(network, images, goal)
            on_epoch(Epoch(epoch + 1, float(learning_rates[epoch][-1]), train_loss, validation_loss))
            progress.set_postfix(loss=train_loss, validation_loss=validation_loss)
            if progress.disable and self.speaks and time.monotonic() - spoken > SECONDS_BETWEEN_LINES:
                spoken = time.monotonic()
                logger.info("seed %d, epoch %d of %d: loss %.4g", seed, epoch + 1, len(learning_rates), train_loss)
            if validation_loss is None:
                continue
            if validation_loss < best_loss:
                best_loss, best_epoch, best_state = validation_loss, epoch, copy.deepcopy(network.state_dict())
            elif epoch - best_epoch >= settings.patience:
                break
        result.load_state_dict(best_state or network.state_dict())
        accelerator.free_memory()
        return result.eval()

    @torch.inference_mode()
    def predict(self, network: nn.Module, images: Tensor) -> Tensor:
        """Outputs float32 [M, O] of preprocessed images [M, C, h, w] in evaluation mode.

        Every process computes a share and gets all.
        """
        network.eval()
        outputs = []
        for part in self._share(len(images))[0].split(4 * self.settings.batch_size):
            outputs.append(network(images[part.to(images.device)].to(self.device)).float())
        return self.accelerator.gather(torch.cat(outputs))[: len(images)]

    def _epoch(
        self,
        parallel: nn.Module,
        optimizer: torch.optim.Optimizer,
        images: Tensor,
        goal: Objective,
        learning_rates: np.ndarray,
        generator: torch.Generator,
    ) -> float:
        """One pass over the images to fit, in as many batches of about equal size as there are learning rates.

        Returns: the mean loss, the same on every process.
        """
        parallel.train()
        fit = torch.from_numpy(goal.fit)
        order = fit[torch.randperm(len(fit), generator=generator)]
        total = torch.zeros((), device=self.device)
        for batch, lr in zip(order.tensor_split(len(learning_rates)), learning_rates, strict=True):
            draws = torch.rand(len(batch), 2, generator=generator)  # of the whole batch, whoever takes which part
            places, counts = self._share(len(batch))
            mine = batch[places]
            views = images[mine.to(images.device)].to(self.device)
            outputs = parallel(augment(views, self.augmentation, draws[places])).float()
            losses = goal.loss(outputs, goal.targets[mine].to(self.device))
            own = (losses * counts.to(self.device)).sum()
            optimizer.zero_grad()
            # Gradients are averaged over processes.
            self.accelerator.backward(own * self.accelerator.num_processes / len(batch))
            self.accelerator.clip_grad_norm_(parallel.parameters(), self.settings.clip_norm)
            for group in optimizer.param_groups:
                group["lr"] = float(lr)
            optimizer.step()
            total += own.detach()
        return float(self.accelerator.reduce(total, "sum")) / len(fit)

    def _validate(self, network: nn.Module, images: Tensor, goal: Objective) -> float | None:
        """Mean loss of the validation part, the same on every process; None where there is none."""
        if self.accelerator.num_processes > 1:
            self._average_statistics(network)
        if goal.validation is None:
            return None
        index = torch.from_numpy(goal.validation)
        outputs = self.predict(network, images[index.to(images.device)])
        return goal.loss(outputs, goal.targets[index].to(self.device)).mean().item()

    def _share(self, count: int) -> tuple[Tensor, Tensor]:
        """This process's contiguous part of `count` images, and which of it count, 1 or 0.

        Parts are equally long; where `count` does not divide, the last image is repeated, and repetitions count 0.
        """
        size = math.ceil(count / self.accelerator.num_processes)
        places = torch.arange(size) + self.accelerator.process_index * size
        return places.clamp(max=count - 1), (places < count).float()

    @torch.no_grad()
    def _average_statistics(self, network: nn.Module) -> None:
        """Gives every process the mean of all processes' batch-norm statistics."""
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                for buffer in module.buffers(recurse=False):
                    if buffer.is_floating_point():
                        buffer.copy_(self.accelerator.reduce(buffer.clone(), "mean"))


@contextmanager
def training_processes(settings: Settings) -> Iterator[Trainer]:
    """A trainer on what `accelerate launch` started, or on this process alone: GPUs where there are any, else CPUs."""
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    threads = torch.get_num_threads()
    AcceleratorState._reset_state(reset_partial_state=alone)  # of a training before, perhaps of another precision
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision="bf16" if settings.bf16 else "no",
        # A pooling may leave parameters of the backbone unused, the same ones in every step.
        kwargs_handlers=[DistributedDataParallelKwargs(static_graph=True)],
    )
    if accelerator.device.type == "cpu":  # `accelerate launch` sets one thread, whatever the cores
        torch.set_num_threads(max(1, cpu_count() // accelerator.num_processes))
    try:
        yield Trainer(accelerator, settings)
        accelerator.wait_for_everyone()
    finally:
        if alone:
            accelerator.end_training()
        AcceleratorState._reset_state(reset_partial_state=alone)
        torch.set_num_threads(threads)


def _learning_rates(settings: Settings, count: int) -> np.ndarray:
    """A warm-up and half a cosine for `count` images, [epochs, steps per epoch]."""
    steps_per_epoch = math.ceil(count / settings.batch_size)
    epochs = settings.epochs or min(max(AUTO_STEPS // steps_per_epoch, AUTO_EPOCHS[0]), AUTO_EPOCHS[1])
    steps = epochs * steps_per_epoch
    return cosine(settings.lr, 0.0, steps, 1, warmup_epochs=int(WARMUP * steps)).reshape(epochs, steps_per_epoch)
