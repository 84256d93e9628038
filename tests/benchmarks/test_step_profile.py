"""What the profile of a step counts: against networks small enough to be counted by hand, and on a whole recipe."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from step_profile import measure
from step_profile.clock import Clock
from step_profile.measure import Profile, profile
from step_profile.operators import Cost, Operators
from step_profile.parts import Parts, part_of
from step_profile.phases import PHASES, Phases
from step_profile.report import text, write
from step_profile.saved import SavedBytes
from tiny_run import RECIPE, write_labelled_images
from torch import nn

from ssl_lens.backbones.swin import Swin, SwinOptions
from ssl_lens.engine.compilation import compile_encoders
from ssl_lens.methods.dino import DINO, DINOOptions
from ssl_lens.recipe.compose import Pretraining, compose
from ssl_lens.recipe.recipe import Recipe, load_recipe

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
HERE = ("student", "MLP")


def saved(network: nn.Module, *inputs: torch.Tensor, bf16: bool = False) -> SavedBytes:
    """What a forward pass saves."""
    counter = SavedBytes(network, lambda: HERE)
    with counter, torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        network(*inputs)
    return counter


def counted(network: nn.Module, images: torch.Tensor, *, bf16: bool = False) -> tuple[Operators, Operators]:
    """Operators of a forward pass, and of backward from the sum."""
    forward, backward = (Operators(lambda: HERE, Clock(CPU)) for _ in range(2))
    with forward, torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        result = network(images).sum()
    with backward:
        result.backward()
    return forward, backward


def test_an_mlp_saves_the_inputs_of_its_layers() -> None:
    mlp = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2))
    counter = saved(mlp, torch.randn(6, 4))
    assert counter.by_place == {HERE: 4 * (6 * 4 + 6 * 8 + 6 * 8)}  # of two Linear and of GELU, in float32
    assert counter.of_weights == 0


def test_under_autocast_the_casts_are_saved_and_those_of_weights_apart() -> None:
    mlp = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2))
    counter = saved(mlp, torch.randn(6, 4), bf16=True)
    assert counter.by_place == {HERE: 2 * (6 * 4 + 6 * 8 + 6 * 8)}
    assert counter.by_dtype == {"bfloat16": counter.by_place[HERE]}
    assert counter.of_weights == 2 * 8 * 2  # of the second Linear: the first has no gradient of its input to compute


class Repeated(nn.Module):
    """A parameter that is made as large as the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.row = nn.Parameter(torch.ones(1, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * self.row.repeat(len(x), 1)).exp()


def test_what_grows_with_the_batch_is_not_of_the_weights() -> None:
    counter = saved(Repeated(), torch.randn(3, 5, requires_grad=True))
    assert counter.by_place == {HERE: 4 * 3 * 5 * 3}  # both factors, and the result of exp
    assert counter.of_weights == 0


def test_a_storage_is_counted_once_and_recomputed_ones_not_at_all() -> None:
    x = torch.randn(3, 5)
    assert saved(nn.Sequential(nn.Tanh(), nn.Flatten(0)), x.requires_grad_()).by_place == {HERE: 4 * 15}

    class Twice(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x.tanh()
            return y * y[:2, None]  # the same storage three times

    assert saved(Twice(), x.requires_grad_()).by_place == {HERE: 4 * 15}

    class Checkpointed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.utils.checkpoint.checkpoint(lambda x: x.tanh().exp().sin(), x, use_reentrant=False)

    assert saved(Checkpointed(), x.requires_grad_()).by_place == {HERE: 4 * 15}  # its input


def test_operators_of_a_layer() -> None:
    forward, backward = counted(nn.Sequential(nn.Linear(4, 8), nn.GELU()), torch.randn(6, 4))
    assert {name: cost.operators for name, cost in forward.costs()[1].items()} == {"addmm": 1, "gelu": 1, "sum": 1}
    names = {name: cost.operators for name, cost in backward.costs()[1].items()}
    assert names == {"ones_like": 1, "gelu_backward": 1, "mm": 1, "sum": 1}  # views are not among them
    assert forward.costs()[0][HERE].flops == backward.costs()[0][HERE].flops == 2 * 6 * 4 * 8
    assert forward.costs()[0][HERE].casts == backward.costs()[0][HERE].casts == 0
    moved = forward.costs()[1]["gelu"].moved_bytes
    assert moved == 2 * 4 * 6 * 8


def test_casts_are_counted_apart() -> None:
    forward, backward = counted(nn.Linear(4, 8), torch.randn(6, 4), bf16=True)
    assert forward.costs()[0][HERE].casts == 3  # input, weight, bias
    assert backward.costs()[0][HERE].casts == 2  # their gradients but the input's
    moved = torch.randn(2, 3, 4, 5)
    with Operators(lambda: HERE, Clock(CPU)) as operators:
        moved.to(memory_format=torch.channels_last)
        torch.zeros(2, dtype=torch.bfloat16).copy_(torch.ones(2))
    by_name = operators.costs()[1]
    assert by_name["_to_copy"].casts == 0
    assert by_name["copy_"].casts == 1


def test_attention_on_a_cpu_has_its_flops() -> None:
    query = torch.randn(2, 3, 8, 16)
    with Operators(lambda: HERE, Clock(CPU)) as operators, torch.no_grad():
        nn.functional.scaled_dot_product_attention(query, query, query)
    assert operators.costs()[0][HERE].flops == 2 * 2 * 2 * 3 * 8 * 8 * 16


def test_parts_of_a_network() -> None:
    swin = Swin(1, SwinOptions(embed_dim=8, depths=(1, 1), num_heads=(1, 2)))
    assert part_of(swin.patch_embed, "other") == "stem"
    block = swin.layers[0].blocks[0]
    assert part_of(block, "other") == "other"
    assert part_of(block.norm1, "other") == "norms"
    assert part_of(block.attn, "other") == "attention"
    assert part_of(block.attn.qkv, "attention") == "attention linears"
    assert part_of(block.mlp, "other") == "MLP"
    assert part_of(block.mlp.fc1, "MLP") == "MLP linears"
    assert part_of(block.mlp.act, "MLP") == "MLP"
    assert part_of(swin.norm, "stem") == "stem"


def test_backward_is_of_the_parts_that_saved_for_it() -> None:
    method = DINO(
        Swin(1, SwinOptions(embed_dim=8, depths=(1, 1), num_heads=(1, 2), drop_path=0.0)),
        DINOOptions(out_dim=4, head_hidden_dim=8, head_bottleneck_dim=4, ema_momentum=0.9),
    )
    parts = Parts(method)
    with Operators(lambda: ("forward", parts.now), Clock(CPU)) as forward:
        result = method.student([torch.randn(2, 3, 1, 16, 16)])
        total = result.view_logits.sum() + sum(logits.sum() for logits in result.region_logits)
    with Operators(lambda: ("backward", parts.now), Clock(CPU)) as backward:
        total.backward()
    mlps = 2 * (4 * 4 * 3 * 2 * 8 * 32 * 2) // 2  # of the first stage: two Linear of 8 x 32 on 4 x 4 tokens of 6 images
    mlps += 6 * 4 * 2 * 16 * 64 * 2  # of the second: on 2 x 2 tokens
    flops = forward.costs()[0]["forward", "MLP"].flops
    assert flops == mlps + 6 * 16 * 2 * 8 * 32
    assert backward.costs()[0]["backward", "MLP"].flops == 2 * flops  # of their inputs and their weights
    there = {part for _, part in backward.costs()[0]}
    assert there >= {"attention", "attention linears", "norms", "MLP", "heads", "stem", "other"}
    parts.close()
    with Operators(lambda: ("forward", parts.now), Clock(CPU)) as forward, torch.no_grad():
        method.student([torch.randn(2, 3, 1, 16, 16)])
    assert set(forward.costs()[0]) == {("forward", "no part")}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("profile")
    write_labelled_images(root / "images", per_class=4)
    file = root / "tiny.yaml"
    file.write_text(RECIPE)
    return file


def given(recipe: Path) -> list[str]:
    return [f"data.path={recipe.parent / 'images'}", "run.device=cpu", "run.cpu_threads=1", "optim.precision=bf16"]


@pytest.fixture(scope="module")
def measured(recipe: Path) -> Profile:
    return profile(str(recipe), given(recipe), steps=2)


def test_the_phases_of_a_step_follow_each_other(recipe: Path, tmp_path: Path) -> None:
    run = compose(load_recipe(recipe, [*given(recipe), f"run.folder={tmp_path}", "optim.accumulate=2"]))
    phases, seen = Phases(), []
    phases.follow(run)
    phases.listeners.append(lambda before, now: seen.append(now))

    class Once:
        def after_step(self, step: object) -> None:
            phases.end_step()
            raise InterruptedError

    run.observers[:] = [Once()]
    with pytest.raises(InterruptedError):
        run.train()
    micro_batch = ["views", "losses", "teacher", "losses", "student", "losses", "backward", "clip"]
    assert seen == [*micro_batch, *micro_batch, "views", "clip", "optimiser", "EMA", "between steps"]


def test_phases_and_parts_add_up_to_the_step(measured: Profile) -> None:
    assert measured.batch_size == 8
    assert set(measured.seconds) == set(PHASES)
    assert all(seconds > 0 for seconds in measured.seconds.values())
    by_phase, by_part = measured.costs_by(0), measured.costs_by(1)
    assert set(by_phase) == set(PHASES)
    for name in Cost.__dataclass_fields__:
        whole = getattr(measured.total, name)
        assert whole > 0
        for sums in (by_phase, by_part, measured.by_operator):
            assert sum(getattr(cost, name) for cost in sums.values()) == pytest.approx(whole)
    assert {phase for phase, _ in measured.saved_bytes} == {"student", "losses"}
    assert sum(measured.saved_by(1).values()) == pytest.approx(measured.saved_bytes_per_image)
    assert by_phase["teacher"].flops < by_phase["student"].flops < by_phase["backward"].flops
    assert by_phase["optimiser"].operators == 2 * 2  # fused AdamW and its count of steps, for each group of parameters
    assert 0 < measured.share_of_peak < 1


def test_it_is_printed_written_and_drawn(measured: Profile, tmp_path: Path) -> None:
    write(measured, tmp_path)
    found = json.loads((tmp_path / "profile.json").read_text())
    assert found["operators"] == sum(place["operators"] for place in found["costs"]) == measured.total.operators
    assert found["saved_bytes_per_image"] * 8 == sum(place["bytes"] for place in found["saved_bytes"])
    assert found["images_per_s"] == pytest.approx(8 / sum(found["seconds"].values()))
    assert (tmp_path / "profile.png").stat().st_size > 10_000
    printed = text(measured)
    assert f"{measured.total.operators} operators a step" in printed
    assert f"saved for backward: {measured.saved_bytes_per_image / 2**20:.1f} MiB an image (" in printed
    assert sum(measured.saved_bytes_by_dtype.values()) == 8 * measured.saved_bytes_per_image


def test_the_saved_bytes_of_an_image_do_not_depend_on_the_batch(measured: Profile, recipe: Path) -> None:
    halves = profile(str(recipe), [*given(recipe), "optim.batch_size=8", "optim.accumulate=2"], steps=1)
    assert halves.saved_bytes_of_weights == 2 * measured.saved_bytes_of_weights
    assert halves.saved_bytes_per_image == pytest.approx(measured.saved_bytes_per_image, rel=0.02)
    assert halves.total.flops == pytest.approx(measured.total.flops, rel=0.01)


@pytest.mark.slow
def test_a_compiled_network_is_timed_compiled_and_counted_plain(
    measured: Profile, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., object]:
        graphs.append(1)
        return graph.forward

    def compiled(recipe: Recipe) -> Pretraining:
        run = compose(recipe)
        compile_encoders(run.method, backend=backend)
        return run

    monkeypatch.setattr(measure, "compose", compiled)
    found = profile(str(recipe), given(recipe), steps=2)
    assert len(graphs) == 3  # two sizes, and the teacher's; none anew for what is counted
    assert found.total.operators == measured.total.operators
    assert found.saved_bytes == measured.saved_bytes
    assert found.first_step_seconds > 2 * found.step_seconds


def test_a_recipe_that_cannot_be_is_one_line() -> None:
    command = [sys.executable, "benchmarks/profile.py", "esvit_swim", "--out", "nowhere"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "the nearest is esvit_swin" in done.stderr


def test_benchmarks_still_have_the_profile_of_the_standard_library() -> None:
    """cProfile imports `profile`, which next to benchmarks is this command's file."""
    code = (
        "import sys; sys.path.insert(0, 'benchmarks'); import cProfile, profile; "
        "print(profile.Profile, profile.__file__)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("<class 'profile.Profile'>")
    assert "benchmarks" in done.stdout
