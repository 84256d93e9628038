"""Weights from files: every family's published names, strictly, and nothing is executed."""

import os
import re
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from ssl_lens.backbones.cvt import CvT, CvTOptions
from ssl_lens.backbones.levit import LeViT, LeViTOptions
from ssl_lens.backbones.resnet import ResNet, ResNetOptions
from ssl_lens.backbones.swin import Swin, SwinOptions
from ssl_lens.backbones.vit import ViT, ViTOptions
from ssl_lens.backbones.weights import load_weights, read_weights
from ssl_lens.errors import InputError


def small(seed: int = 0) -> ResNet:
    torch.manual_seed(seed)
    return ResNet(1, ResNetOptions(width=2, depths=(1, 1)))


@pytest.mark.parametrize("form", ["safetensors", "plain", "wrapped", "parallel"])
def test_a_file_of_the_networks_own_weights_is_loaded(form: str, tmp_path: Path) -> None:
    theirs, ours = small(1), small(2)
    path = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pth")
    state = theirs.state_dict()
    if form == "safetensors":
        save_file(state, path)
    elif form == "parallel":
        torch.save({f"module.{key}": value for key, value in state.items()}, path)
    else:
        torch.save({"epoch": 3, "model": state} if form == "wrapped" else state, path)
    load_weights(ours, read_weights(path), path)
    assert all(torch.equal(value, state[key]) for key, value in ours.state_dict().items())


@pytest.mark.parametrize(
    ("network", "theirs"),
    [
        (lambda: Swin(3), "swin_tiny_patch4_window7_224"),
        (lambda: ViT(3, ViTOptions(embed_dim=192, num_heads=3)), "vit_tiny_patch16_224"),
        (lambda: LeViT(3, LeViTOptions((128, 256, 384), num_heads=(4, 8, 12), key_dim=16)), "levit_128"),
    ],
)
@torch.no_grad()
def test_timms_weights_are_loaded_with_their_classifier_left_out(network, theirs: str) -> None:
    torch.manual_seed(0)
    state = timm.create_model(theirs).state_dict()
    ours = network()
    load_weights(ours, state, theirs)
    loaded = ours.state_dict()
    name = next(name for name in loaded if name.endswith("blocks.1.mlp.fc1.weight") or "ln1" in name)
    assert torch.equal(loaded[name], state[name.replace("layers.", "stages.") if "levit" in theirs else name])


def test_the_authors_weights_of_a_cvt_are_loaded() -> None:
    options = CvTOptions((4, 8, 8), num_heads=(1, 2, 2), depths=(1, 1, 1))
    theirs, ours = CvT(1, options), CvT(1, options)
    published = {re.sub(r"^layers\.(\d)", r"stage\1", key): value for key, value in theirs.state_dict().items()}
    load_weights(ours, published | {"head.weight": torch.zeros(9, 8), "head.bias": torch.zeros(9)}, "theirs.pth")
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in ours.state_dict().items())


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda: ResNet(1, ResNetOptions(width=2, depths=(1, 2))), "missing (such as layers.1.1.bn1.bias)"),
        (lambda: ResNet(1, ResNetOptions(width=2, depths=(1,))), "unknown (such as layers.1.0.bn1.bias)"),
        (lambda: ResNet(3, ResNetOptions(width=2, depths=(1, 1))), "1 of another shape (stem.0.weight (2, 1, 3, 3) in"),
        (lambda: Swin(1, SwinOptions(8, (1, 1), (1, 1))), "theirs.pth holds the weights of another network: "),
    ],
)
def test_the_weights_of_another_network_are_one_line(network, message: str) -> None:
    with pytest.raises(InputError) as error:
        load_weights(network(), small().state_dict(), "theirs.pth")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("trapped",)


def test_a_pickle_is_never_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(InputError, match=r"trap.pth cannot be read as weights .*; give a .safetensors file") as error:
        read_weights(tmp_path / "trap.pth")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "weights.pth does not exist; give a file of weights"),
        (
            b"not weights",
            "weights.pth cannot be read as weights (it is none of torch's, or would have to be executed); give",
        ),
        ([1, 2], "weights.pth holds no state dict; save `network.state_dict()` in it"),
        ({"epoch": 3}, "weights.pth holds no state dict"),
    ],
)
def test_a_file_without_weights_is_one_line(content: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(InputError) as error:
        read_weights(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
