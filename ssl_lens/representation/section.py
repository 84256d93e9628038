"""The section `features` of a recipe."""

from __future__ import annotations

from ssl_lens.representation.pooling_names import DEFAULT_POOLING, Pooling
from ssl_lens.section import Section


class FeaturesOfRun(Section):
    """What the frozen backbone of a run gives as features, which are measured and exported."""

    pooling: Pooling = DEFAULT_POOLING
