"""All probes by name: a probe is a file here and a line below."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ssl_lens.errors import InputError
from ssl_lens.evaluation.probes.constant import Constant
from ssl_lens.evaluation.probes.features import Features
from ssl_lens.evaluation.probes.finetune import Finetune
from ssl_lens.evaluation.probes.isolation_forest import Isolation
from ssl_lens.evaluation.probes.knn import KNN
from ssl_lens.evaluation.probes.linear import Linear
from ssl_lens.evaluation.probes.mahalanobis import Mahalanobis
from ssl_lens.evaluation.probes.probe import Probe
from ssl_lens.evaluation.probes.ridge import Ridge

PROBES: dict[str, Callable[[], Probe]] = {
    "knn": KNN,
    "linear": Linear,
    "ridge": Ridge,
    "finetune": Finetune,
    "mahalanobis": Mahalanobis,
    "isolation_forest": Isolation,
    "constant": Constant,
    "features": Features,
}


def probes_named(probes: Sequence[str | Probe]) -> list[Probe]:
    """Probes as they are, and by name with their defaults.

    Raises: InputError if there is no such probe.
    """
    unknown = [probe for probe in probes if isinstance(probe, str) and probe not in PROBES]
    if unknown:
        raise InputError(f"probe {unknown[0]} is unknown; there are {', '.join(PROBES)}")
    return [PROBES[probe]() if isinstance(probe, str) else probe for probe in probes]
