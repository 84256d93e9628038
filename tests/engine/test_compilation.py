"""Encoders that are compiled: whole, once for each size, without a trace in what is saved. No compiler is needed."""

import copy
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ssl_lens.backbones.backbone import FixedFrontBackbone, MapBackbone
from ssl_lens.backbones.steerable.stem import Stem, StemmedBackbone, StemOptions
from ssl_lens.backbones.swin import Swin, SwinOptions
from ssl_lens.engine.compilation import compile_encoders, compiler_problem
from ssl_lens.methods.dino import DINO, DINOOptions
from ssl_lens.recipe.library import recipe_names
from ssl_lens.recipe.network import backbone
from ssl_lens.recipe.recipe import Recipe, load_recipe
from ssl_lens.views.multicrop import Views

OPTIONS = DINOOptions(out_dim=4, head_hidden_dim=8, head_bottleneck_dim=4, ema_momentum=0.9)
SMALL = {"esvit_cvt": ("model.depths=[1, 1, 2, 1]",), "lenses_cpu": ()}  # a Swin with a stem is in the first test


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Graphs:
    """A backend that computes a graph as it is, and notes the shape of the first images that it was made for."""

    def __init__(self) -> None:
        self.sides: list[int] = []

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        self.sides += [max(given.shape[-1] for given in inputs if given.ndim == 4 and given.shape[1] == 1)]
        return graph.forward


def stemmed(drop_path: float = 0.5) -> MapBackbone:
    options = SwinOptions(embed_dim=8, depths=(2, 1), num_heads=(1, 2), patch_size=1, drop_path=drop_path)
    return StemmedBackbone(Stem(1, StemOptions(group="C4", fields=2, depth=1, kernel_size=3)), Swin(2, options))


def views() -> Views:
    return Views(torch.randn(2, 3, 1, 8, 8), (torch.randn(2, 3, 1, 4, 4),))


def test_each_network_is_compiled_whole_and_once_for_each_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit, where the plain stem too expands its filters for each size, as the graphs of the compiled one do."""
    monkeypatch.setattr("ssl_lens.backbones.steerable.stem.expanded_once", lambda network: nullcontext())
    method, graphs = DINO(stemmed(), OPTIONS), Graphs()
    plain = copy.deepcopy(method)
    compile_encoders(method, backend=graphs)
    given = views()
    schedule = method.schedule(2, 5)
    for step in range(3):
        now = schedule.at(step)
        torch.manual_seed(step)
        losses = method(given, now)
        losses["total"].backward()
        torch.manual_seed(step)
        expected = plain(given, now)
        expected["total"].backward()
        assert losses == expected  # to the bit, drop path included: the backend computes the same operators
        for network in (method, plain):
            torch.optim.SGD(network.student.parameters(), 0.1).step()
            network.student.zero_grad()
            network.after_step(now)
    assert sorted(graphs.sides) == [4, 8, 8]  # of the student, and the teacher for global crops
    assert method.state_dict().keys() == plain.state_dict().keys()
    for name, tensor in plain.state_dict().items():
        assert torch.equal(method.state_dict()[name], tensor), name


@pytest.mark.slow
def test_gradients_in_bf16_are_equal_within_its_rounding() -> None:
    swin = Swin(1, SwinOptions(embed_dim=8, depths=(1, 1), num_heads=(1, 2), patch_size=1, drop_path=0.5))
    method = DINO(swin, OPTIONS)
    plain, given, now = copy.deepcopy(method), views(), method.schedule(2, 5).at(0)
    compile_encoders(method, backend="aot_eager")
    for each in (method, plain):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16):
            each(given, now)["total"].backward()
    for ours, theirs in zip(method.student.parameters(), plain.student.parameters(), strict=True):
        if theirs.grad is not None:
            assert (ours.grad - theirs.grad).norm() <= 2**-7 * theirs.grad.norm() + 1e-9


def test_a_copy_is_not_compiled() -> None:
    method, graphs = DINO(stemmed(), OPTIONS), Graphs()
    compile_encoders(method, backend=graphs)
    copy.deepcopy(method.backbone).eval()(torch.randn(2, 1, 8, 8))
    method.backbone.fold()(torch.randn(2, 1, 8, 8))
    assert graphs.sides == []


@pytest.mark.parametrize("name", SMALL)
def test_no_graph_breaks(name: str) -> None:
    compiled_whole(load_recipe(name, SMALL[name]))


@pytest.mark.slow
@pytest.mark.parametrize("name", recipe_names())
def test_no_graph_breaks_in_the_networks_of_recipes(name: str) -> None:
    compiled_whole(load_recipe(name))


def compiled_whole(recipe: Recipe) -> None:
    """Fails where a graph breaks: in training under autocast, as the student; without gradients, as the teacher."""
    network = backbone(recipe, 1).train()
    compiled = torch.compile(network, fullgraph=True, backend="eager", dynamic=False)
    side = min((recipe.views.global_size, *recipe.views.local_sizes))
    images = torch.randn(2, 1, side, side)
    if isinstance(network, FixedFrontBackbone):  # which takes what its fixed part says
        images = network.fixed_features(images)
    with torch.autocast("cpu", torch.bfloat16):
        assert compiled(images).view.requires_grad
        with torch.no_grad():
            compiled(images)


def test_no_compiler_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    with torch._inductor.config.patch({"cpp.cxx": (None, "no_such_compiler"), "fx_graph_cache": False}):
        problem = compiler_problem(torch.device("cpu"))
    assert problem is not None
    assert "compiler" in problem
    assert "\n" not in problem
