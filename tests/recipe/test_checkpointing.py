"""`run.checkpointing` where it does nothing; that it reaches a network is said by the test of all keys."""

from collections.abc import Callable

import pytest

from ssl_lens.errors import InputError
from ssl_lens.recipe.compose import Pretraining


def test_a_network_without_blocks_is_refused(run: Callable[..., Pretraining]) -> None:
    with pytest.raises(InputError, match=r"run\.checkpointing=true does nothing for model\.name=resnet_micro"):
        run("refused", "model={name: resnet_micro}", "run.checkpointing=true")
