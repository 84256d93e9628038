"""Supervised training of a whole network, from a pretrained backbone or from scratch, on any number of processes."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from joblib import cpu_count
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from tqdm import tqdm

from ssl_lens.backbones.backbone import Backbone
from ssl_lens.errors import InputError
from ssl_lens.evaluation.augment import Augmentation, augment
from ssl_lens.evaluation.rotation import EIGHTHS, turned
from ssl_lens.optim import adamw
from ssl_lens.representation.pooling import Pooling, pooled
from ssl_lens.schedules import cosine

AUTO_STEPS = 3000  # epochs=None: about this many steps ...
AUTO_EPOCHS = (10, 100)  # ... within these numbers of epochs
WARMUP = 0.1  # of the steps

# (outputs float32 [B, O], targets [B, ...]) -> loss of every image [B]
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Settings:
    """How a network is trained; batch_size counts images over all processes.

    Attributes:
        epochs: length of the cosine schedule; None for about 3,000 steps, at least 10 and at most 100 epochs.
        patience: stop after this many epochs without a lower validation loss.
    """

    pooling: Pooling = "view"
    epochs: int | None = None
    batch_size: int = 64
    lr: float = 5e-4
    weight_decay: float = 0.05
    clip_norm: float = 3.0
    patience: int = 20
    augmentation: Augmentation = "continuous"


class Examples(NamedTuple):
    """Images and what is to be learned of them.

    Shapes: images, preprocessed, [N, C, h, w]; targets [N, ...]; fit and validation: indices into both, the latter
    None where there are too few images to hold some out.
    """

    images: Tensor
    targets: Tensor
    fit: np.ndarray
    validation: np.ndarray | None


class Epoch(NamedTuple):
    """What is known after an epoch, counted from 1; losses are means over images, lr is that of its last step."""

    epoch: int
    lr: float
    train_loss: float
    validation_loss: float | None


class Predictor(nn.Module):
    """A backbone and what turns its pooled features into outputs: images [B, C, H, W] -> [B, O]."""

    def __init__(self, backbone: Backbone, head: nn.Module, pooling: Pooling) -> None:
        super().__init__()
        self.backbone, self.head, self.pooling = backbone, head, pooling

    def forward(self, images: Tensor) -> Tensor:
        return self.head(pooled(self.backbone, images, self.pooling))

    @property
    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


def predictor(backbone: Backbone, num_outputs: int, pooling: Pooling, example: Tensor) -> Predictor:
    """A copy of the backbone under a fresh head: on the view feature the one of its authors, else a normalised linear.

    Args:
        example: one prepared image [1, C, h, w], to count the features.

    Raises: InputError if the backbone cannot take such an image.
    """
    backbone = copy.deepcopy(backbone).requires_grad_(True)
    example = example.to(next(backbone.parameters()).device)
    backbone.check_images(example)
    if pooling == "view":
        return Predictor(backbone, backbone.head(num_outputs), pooling)
    with torch.no_grad():
        num_features = pooled(backbone.eval(), example, pooling).shape[1]
    head = nn.Sequential(nn.LayerNorm(num_features), nn.Linear(num_features, num_outputs))
    return Predictor(backbone, head, pooling)


class Trainer:
    """Trains networks and applies them, with one set of settings, on all processes at once.

    The images of a step do not depend on the number of processes, of which each takes an equal share. With batch norm,
    GPUs share the statistics of a step; processors normalise their own shares and average the running statistics.
    """

    def __init__(self, accelerator: Accelerator, settings: Settings) -> None:
        self.accelerator, self.settings = accelerator, settings
        self.device = accelerator.device
        self.speaks = accelerator.is_main_process  # prints, writes

    def train(
        self, network: Predictor, examples: Examples, loss: Loss, *, seed: int, on_epoch: Callable[[Epoch], None]
    ) -> Predictor:
        """The network with the weights of its best epoch on the validation part, or of its last where there is none.

        Args:
            network: is changed; the one returned is a copy in plain float32.
            seed: decides batches, augmentation and drop path.
            on_epoch: is told of every epoch, on every process.

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
        learning_rates = _learning_rates(settings, len(examples.fit))
        best_loss, best_epoch, best_state = math.inf, 0, None
        quiet = None if self.speaks else True
        progress = tqdm(range(len(learning_rates)), desc=f"seed {seed}", unit="epoch", leave=False, disable=quiet)
        for epoch in progress:
            train_loss = self._epoch(parallel, optimizer, examples, loss, learning_rates[epoch], generator)
            if not math.isfinite(train_loss):
                raise InputError(f"the loss became {train_loss} in epoch {epoch + 1}; lower --lr={settings.lr}")
            validation_loss = self._validate(network, examples, loss)
            on_epoch(Epoch(epoch + 1, float(learning_rates[epoch][-1]), train_loss, validation_loss))
            progress.set_postfix(loss=train_loss, validation_loss=validation_loss)
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
    def predict(self, network: nn.Module, images: Tensor, move: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Outputs float32 [M, O] of prepared images [M, C, h, w] in evaluation mode.

        Every process computes a share and gets all. `move` is done to each batch first.
        """
        network.eval()
        outputs = []
        for part in self._share(len(images))[0].split(4 * self.settings.batch_size):
            batch = images[part.to(images.device)].to(self.device)
            outputs.append(network(batch if move is None else move(batch)).float())
        return self.accelerator.gather(torch.cat(outputs))[: len(images)]

    def turned_outputs(self, network: Predictor, images: Tensor) -> Tensor:
        """Outputs [8, M, O] of prepared images [M, C, h, w] at the rotations by multiples of 45 degrees."""
        moves = [partial(turned, eighths=eighths) for eighths in range(EIGHTHS)]
        return torch.stack([self.predict(network, images, move) for move in moves])

    def _epoch(
        self,
        parallel: nn.Module,
        optimizer: torch.optim.Optimizer,
        examples: Examples,
        loss: Loss,
        learning_rates: np.ndarray,
        generator: torch.Generator,
    ) -> float:
        """One pass over the images to fit, in as many batches of about equal size as there are learning rates.

        Returns: the mean loss, the same on every process.
        """
        parallel.train()
        fit = torch.from_numpy(examples.fit)
        order = fit[torch.randperm(len(fit), generator=generator)]
        total = torch.zeros((), device=self.device)
        for batch, lr in zip(order.tensor_split(len(learning_rates)), learning_rates, strict=True):
            draws = torch.rand(len(batch), 2, generator=generator)  # of the whole batch, whoever takes which part
            places, counts = self._share(len(batch))
            mine = batch[places].to(examples.images.device)
            views = augment(examples.images[mine].to(self.device), self.settings.augmentation, draws[places])
            losses = loss(parallel(views).float(), examples.targets[mine].to(self.device))
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

    def _validate(self, network: nn.Module, examples: Examples, loss: Loss) -> float | None:
        """Mean loss of the validation part, the same on every process; None where there is none."""
        if self.accelerator.num_processes > 1:
            self._average_statistics(network)
        if examples.validation is None:
            return None
        index = torch.from_numpy(examples.validation).to(examples.images.device)
        outputs = self.predict(network, examples.images[index])
        return loss(outputs, examples.targets[index].to(self.device)).mean().item()

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
def training_processes(settings: Settings, *, bf16: bool) -> Iterator[Trainer]:
    """A trainer on what `accelerate launch` started, or on this process alone: GPUs where there are any, else CPUs.

    Args:
        bf16: run networks in training under bfloat16 autocast; losses and the final predictions stay in float32.
    """
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision="bf16" if bf16 else "no",
        # A pooling may leave parameters of the backbone unused, the same ones in every step.
        kwargs_handlers=[DistributedDataParallelKwargs(static_graph=True)],
    )
    if accelerator.device.type == "cpu":  # `accelerate launch` sets one thread, whatever the cores
        torch.set_num_threads(max(1, cpu_count() // accelerator.num_processes))
    try:
        yield Trainer(accelerator, settings)
        accelerator.wait_for_everyone()
    finally:
        accelerator.end_training()


def _learning_rates(settings: Settings, count: int) -> np.ndarray:
    """A warm-up and half a cosine for `count` images, [epochs, steps per epoch]."""
    steps_per_epoch = math.ceil(count / settings.batch_size)
    epochs = settings.epochs or min(max(AUTO_STEPS // steps_per_epoch, AUTO_EPOCHS[0]), AUTO_EPOCHS[1])
    steps = epochs * steps_per_epoch
    return cosine(settings.lr, 0.0, steps, 1, warmup_epochs=int(WARMUP * steps)).reshape(epochs, steps_per_epoch)
