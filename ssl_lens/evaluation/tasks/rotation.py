"""What becomes of features and outputs when the image is rotated."""

from __future__ import annotations

import numpy as np

from ssl_lens.evaluation.answers import Numbers
from ssl_lens.evaluation.division import Division, Divisions
from ssl_lens.evaluation.probes.features import Features
from ssl_lens.evaluation.probes.probe import Probe
from ssl_lens.evaluation.tasks.task import Task, Truth
from ssl_lens.evaluation.turns import EIGHTHS, quarter_turns, spread


class Rotation(Task):
    """The change under the 8 rotations by 45 degrees and the 4 by 90, which change no pixel of a square image.

    `std_...` is the standard deviation over the rotations, averaged over images and outputs: of logits the "logit std"
    of the lens literature; of numbers there is one each, in their units. `relative_...` is the scatter over rotations
    as a fraction of all scatter, root mean square: 0 is invariant, and at 1 images differ by their rotation alone.
    """

    name = "rotation"
    probes = ("features",)
    turns = tuple(range(EIGHTHS))
    metrics = ("std_8x45", "std_4x90", "relative_8x45", "relative_4x90")

    def divide(self, divisions: Divisions) -> Division:
        if divisions.question.target_columns:
            return divisions.numbers
        return divisions.normal if divisions.images.labels is None else divisions.classes

    def takes(self, probe: Probe, division: Division) -> bool:
        return isinstance(probe, Features) or super().takes(probe, division)

    def scores(self, truth: Truth, said: np.ndarray) -> dict[str, float]:
        scores: dict[str, float] = {}
        for name, outputs in (("8x45", said), ("4x90", quarter_turns(said))):
            stds = spread(outputs)
            if isinstance(truth, Numbers) and len(stds) == len(truth.names):
                scores |= {f"std_{name}[{column}]": float(std) for column, std in zip(truth.names, stds, strict=True)}
            else:
                scores[f"std_{name}"] = float(stds.mean())
            scores[f"relative_{name}"] = relative_scatter(outputs)
        return scores


def relative_scatter(outputs: np.ndarray) -> float:
    """Scatter over rotations as a fraction of that over rotations and images, of outputs [R, N, K]; K in quadrature."""
    outputs = outputs.astype(np.float64)
    over_rotations = outputs.var(axis=0).mean(axis=0).sum()
    whole = over_rotations + outputs.mean(axis=0).var(axis=0).sum()
    return float(np.sqrt(over_rotations / whole)) if whole else float("nan")
