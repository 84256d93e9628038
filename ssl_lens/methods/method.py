"""What a self-supervised method is: what it trains, what it keeps, and its losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ssl_lens.backbones.backbone import Encoder
from ssl_lens.section import Section
from ssl_lens.views.multicrop import Views


class Choice(NamedTuple):
    """What an option whose value is `auto` becomes, and from what."""

    value: Any
    reason: str


class MethodOptions(Section):
    """The section `method` of a recipe."""

    name: str

    def choices(self, *, n_images: int, steps: int) -> dict[str, Choice]:
        """What options become whose value is `auto`, in a run of `steps` on `n_images`."""
        return {}

    @property
    def without_regions(self) -> str | None:
        """`option=value` that spares the method the regions of a map; None if it uses none."""
        return None


class MethodSchedule(Protocol):
    """The method's own quantities that change during training."""

    def at(self, step: int) -> Any:
        """The values of a step, a NamedTuple of numbers; they are reported by name."""


class NoValues(NamedTuple):
    """The values of a step of a method in which nothing changes during training."""


class NoSchedule:
    """The schedule of such a method."""

    def at(self, step: int) -> NoValues:
        """Nothing, in every step."""
        return NoValues()


class Panel(NamedTuple):
    """A part of the picture of a run's curves.

    Attributes:
        title: with the unit.
        metrics: names of the losses and metrics that share its axes; those that were not measured are left out.
        level: where a dashed line is drawn, such as the loss while nothing is learned.
    """

    title: str
    metrics: tuple[str, ...]
    level: float | None = None


class Method(nn.Module, ABC):
    """A self-supervised method as the training loop sees it.

    In every step the loop calls `start_step`, `forward` once per micro-batch (and backward on its "total"), then, if
    all gradients are finite on all ranks, `before_step`, the optimiser's step, `after_step`.

    Attributes:
        Options: the section of a recipe that configures the method; the default of its field `name` is the method's.
    """

    Options: ClassVar[type[MethodOptions]]

    def __init__(self, backbone: Encoder, options: Any) -> None:
        """Builds the method around the network to train, which keeps its weights.

        Args:
            options: of the class `Options`, with no value left at `auto`.
        """
        super().__init__()
        self.options = options

    @property
    @abstractmethod
    def trained(self) -> nn.Module:
        """What the optimiser steps: a part of the method, or the method itself."""

    @property
    @abstractmethod
    def backbone(self) -> Encoder:
        """What is kept: measured, exported. It is a part of the method, by another name than this one."""

    @property
    def panels(self) -> tuple[Panel, ...]:
        """What the picture of a run shows of the losses and metrics; "total" is called "loss" there."""
        return (Panel("loss", ("loss",)),)

    def schedule(self, epochs: int, steps_per_epoch: int) -> MethodSchedule:
        """The method's own quantities over a run, by default none.

        Raises: InputError if they do not fit its length.
        """
        return NoSchedule()

    @abstractmethod
    def losses(self, views: Views, now: Any) -> dict[str, Tensor]:
        """Scalars by name; "total" is what is minimised.

        Args:
            views: of the images of a micro-batch.
            now: the values of this step, from the method's schedule.
        """

    def forward(self, views: Views, now: Any) -> dict[str, Tensor]:
        """`losses`: the way in for wrappers such as DDP."""
        return self.losses(views, now)

    def start_step(self) -> None:  # noqa: B027, a hook that a method need not have
        """Called before the first micro-batch of a step; what is left of a step that was skipped is dropped here."""

    def before_step(self, now: Any) -> None:  # noqa: B027
        """Called between the clipping of gradients and the optimiser's step."""

    def after_step(self, now: Any) -> None:  # noqa: B027
        """Called after the optimiser's step."""

    @abstractmethod
    def features(self) -> Tensor:
        """View features [M, D] of this step's images by the backbone that is kept, without gradient."""

    def metrics(self, now: Any) -> dict[str, float]:
        """What is worth watching of this step besides the losses, by default nothing; called on every rank at once."""
        return {}

    def advice(self, metrics: dict[str, float]) -> list[str]:
        """What a step's losses and metrics (`feature_std` and `rankme` among them) say is wrong, and what to set.

        An option of the method or of the optimiser goes by its own name, such as `lr`; by default nothing is said.
        """
        return []

    @torch.no_grad()
    def finite_images(self, views: Views) -> Tensor:
        """Which images [B], bool, have finite features in all views; in evaluation mode, so that batch norms do not
        spread one image's NaN over the batch."""
        modes = {module: module.training for module in self.modules()}
        self.eval()
        finite = [self._features(crops).isfinite().all(dim=2).all(dim=0) for crops in views.all()]
        for module, mode in modes.items():
            module.training = mode
        return torch.stack(finite).all(dim=0)

    def _features(self, crops: Tensor) -> Tensor:
        """View features [V, B, D] of crops [V, B, C, S, S], by what is trained where that can be told apart."""
        return self.backbone(crops.flatten(0, 1)).view.unflatten(0, crops.shape[:2])
