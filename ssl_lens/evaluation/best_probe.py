"""The fitted probe that is worth keeping, saved with its backbone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from torch import nn

from ssl_lens.data.pixels.preprocess import Preprocess
from ssl_lens.errors import InputError
from ssl_lens.evaluation.answers import Classes, Numbers
from ssl_lens.evaluation.division import Division, Draw
from ssl_lens.evaluation.probes.fitted_network import FittedNetwork
from ssl_lens.evaluation.probes.probe import Fitted, Probe
from ssl_lens.evaluation.targets import Target
from ssl_lens.representation.predictor import Classes as ClassOutputs
from ssl_lens.representation.predictor import Outputs, Predictor, Targets, save_predictor


class _Kept(NamedTuple):
    preprocess: Preprocess
    network: Predictor
    outputs: Outputs


class BestProbe:
    """Of the fitted probes of one target, the one of most images, among these that of the lowest validation loss.

    Where no loss tells them apart the first one counts: results on the images that judge must not choose.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self.kept: _Kept | None = None
        self._rank = (0, math.inf)

    def offer(self, target: Target, probe: Probe, division: Division, draw: Draw, fitted: Fitted) -> None:
        """Keeps a fitted probe, if it is better and can be saved."""
        loss = math.inf if fitted.validation_loss is None else fitted.validation_loss
        rank = (-len(draw.index), loss)
        if target.name != self.target or rank >= self._rank:
            return
        if isinstance(fitted, FittedNetwork):
            self.kept, self._rank = _Kept(target.preprocess, fitted.network, fitted.meaning), rank
            return
        head = fitted.head()
        if head is not None and target.frozen is not None:
            frozen = target.frozen
            if frozen.alignment is not None:
                assert isinstance(head, nn.Linear), "of the probes of features"
                head = frozen.alignment.folded_into(head)
            network = Predictor(frozen.backbone, head, frozen.pooling)
            self.kept, self._rank = _Kept(target.preprocess, network, _meaning(division)), rank

    def save(self, folder: Path, size: tuple[int, int]) -> None:
        """Writes it as `save_predictor` does.

        Args:
            size: height and width of the raw images in pixels.

        Raises: InputError if nothing that was fitted can be saved.
        """
        if self.kept is None:
            raise InputError(
                f"save={folder}: none of the probes can be saved with {self.target}; use linear, ridge or finetune"
            )
        save_predictor(folder, self.kept.preprocess, self.kept.network, self.kept.outputs, image_size=size)


def _meaning(division: Division) -> Outputs:
    learned = division.learned
    if isinstance(learned, Classes):
        return ClassOutputs(learned.names)
    assert isinstance(learned, Numbers)
    count = len(learned.columns)
    return Targets(learned.columns, (0.0,) * count, (1.0,) * count, learned.log)
