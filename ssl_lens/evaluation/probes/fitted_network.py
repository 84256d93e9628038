"""A trained network as what answers for images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ssl_lens.evaluation.probes.probe import Fitted
from ssl_lens.representation.predictor import Outputs, Predictor, Targets


@dataclass
class FittedNetwork(Fitted[Tensor]):
    """A trained network; its inputs are preprocessed images [M, C, h, w].

    Attributes:
        apply: gives its outputs [M, O] of them.
        meaning: of the outputs.
    """

    network: Predictor
    apply: Callable[[Predictor, Tensor], Tensor]
    meaning: Outputs
    validation_loss: float | None

    def __post_init__(self) -> None:
        self.parameters = self.network.parameter_count

    def predict(self, inputs: Tensor) -> np.ndarray:
        if isinstance(self.meaning, Targets):
            return self.outputs(inputs)
        return self.meaning.values(self.apply(self.network, inputs))

    def outputs(self, inputs: Tensor) -> np.ndarray:
        """Logits; of numbers themselves, of logarithms the decades."""
        outputs = self.apply(self.network, inputs).double().cpu().numpy()
        if isinstance(self.meaning, Targets):
            outputs = np.array(self.meaning.mean) + np.array(self.meaning.std) * outputs
        return outputs
