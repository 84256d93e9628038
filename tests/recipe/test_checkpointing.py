"""`run.checkpointing`: the same run with less memory, or a refusal."""

import json
from collections.abc import Callable

import pytest

from ssl_lens.errors import InputError
from ssl_lens.recipe.compose import Pretraining


def test_the_curve_stays_and_what_is_trained_is_checkpointed(run: Callable[..., Pretraining]) -> None:
    curves = []
    for name in ("false", "true"):
        pretraining = run(name, f"run.checkpointing={name}", "optim.epochs=1", "optim.warmup_epochs=0")
        curves.append([json.loads(line)["loss"] for line in pretraining.folder.metrics.read_text().splitlines()])
    assert curves[0] == curves[1]


def test_a_network_without_blocks_is_refused(run: Callable[..., Pretraining]) -> None:
    with pytest.raises(InputError, match=r"run\.checkpointing=true does nothing for model\.name=resnet_micro"):
        run("refused", "model={name: resnet_micro}", "run.checkpointing=true")
