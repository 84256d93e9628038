"""Runs whose networks are compiled, next to plain ones."""

import json
import logging
from collections.abc import Callable, Iterator

import pytest
import torch
from stopping import Stopped
from torch._dynamo.backends.debugging import aot_eager

from ssl_lens.engine.compilation import compile_encoders
from ssl_lens.recipe import network
from ssl_lens.recipe.compose import Pretraining, compose
from ssl_lens.recipe.network import compiled_where_it_pays
from ssl_lens.recipe.recipe import Recipe

RESNET = "model={name: resnet_micro}"  # with batch norms, whose statistics a graph changes
CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def losses(run: Pretraining) -> list[float]:
    return [json.loads(line)["loss"] for line in run.folder.metrics.read_text().splitlines()]


@pytest.mark.slow
def test_a_compiled_run_is_the_plain_one_and_goes_on_with_its_checkpoints(
    tiny_recipe: Callable[..., Recipe], run: Callable[..., Pretraining], stopped_in_step_3: Stopped
) -> None:
    """Through all of the compiler but what makes code; from a checkpoint of a plain run, too."""
    plain = losses(run("plain", RESNET))
    compiled = compose(tiny_recipe("compiled", RESNET))
    graphs = compiled_in_steps(compiled)
    compiled.run()
    assert losses(compiled) == pytest.approx(plain, rel=1e-6)
    assert graphs == [0, 0, 0]  # two sizes of crops, and the teacher's one: all of them in the first step

    with stopped_in_step_3():
        run("stopped", RESNET)
    torch._dynamo.reset()
    resumed = compose(tiny_recipe("stopped", RESNET, "run.resume=auto"))
    graphs = compiled_in_steps(resumed)
    resumed.run()
    assert graphs == [resumed.start] * 3
    assert losses(resumed) == pytest.approx(plain, rel=1e-6)


def compiled_in_steps(run: Pretraining) -> list[int]:
    """Compiles what a run trains; in which steps a graph was made is added as it trains."""
    steps: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., object]:
        steps.append(len(losses(run)) if run.folder.metrics.exists() else 0)
        return aot_eager(graph, inputs)

    compile_encoders(run.method, backend=backend)
    return steps


@pytest.mark.parametrize(
    ("compile_", "device", "compiles"),
    [("auto", CPU, False), ("auto", GPU, True), ("true", CPU, True), ("false", GPU, False)],
)
def test_where_it_compiles(
    tiny_recipe: Callable[..., Recipe],
    monkeypatch: pytest.MonkeyPatch,
    compile_: str,
    device: torch.device,
    compiles: bool,
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(network, "compiler_problem", lambda device: None)
    monkeypatch.setattr(network, "compile_encoders", asked.append)
    method = object()
    lines = compiled_where_it_pays(tiny_recipe("run", f"run.compile={compile_}"), method, device)
    assert asked == [method] * compiles
    assert len(lines) == compiles


def test_without_a_compiler_a_run_goes_on_with_a_line(
    run: Callable[..., Pretraining], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(network, "compiler_problem", lambda device: "No working C++ compiler found")
    with caplog.at_level(logging.INFO, "ssl_lens"):
        found = losses(run("tried", "run.compile=true"))
    (line,) = (message for message in caplog.messages if message.startswith("run.compile=true: "))
    assert "No working C++ compiler found" in line
    assert found == losses(run("plain"))
