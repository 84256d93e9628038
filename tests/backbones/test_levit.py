"""The LeViT is timm's LeViT-256 without distillation, and takes smaller images than it was built for."""

import pytest
import torch
from parity import formula_image, formula_weights
from timm.models.levit import Levit

from ssl_lens.backbones.levit import LeViT, LeViTOptions
from ssl_lens.errors import InputError

SMALL = {"embed_dim": (16, 24, 32), "num_heads": (2, 3, 4), "key_dim": 8}


def timms(image_size: int | tuple[int, int], **arguments) -> Levit:
    network = Levit(img_size=image_size, num_classes=0, **arguments).double().eval()
    network.load_state_dict(formula_weights(network))
    return network


def renamed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.replace("stages.", "layers."): tensor for name, tensor in state.items()}


def test_levit_256_has_the_published_parameters():
    with torch.device("meta"):
        network = LeViT(3)
        count = sum(p.numel() for p in network.parameters())
        head = sum(p.numel() for p in network.head(1000).parameters())
    assert count + head == 18_379_852
    assert count + 2 * head == 18_893_876  # as published: a second head for distillation


@torch.no_grad()
def test_it_equals_timms_on_the_same_weights():
    theirs = timms(224, embed_dim=(256, 384, 512), key_dim=32, num_heads=(4, 6, 8), depth=(4, 4, 4))
    ours = LeViT(3).double().eval()
    ours.load_state_dict(renamed(theirs.state_dict()), strict=True)
    images = formula_image(1, 3, 224, 224)
    torch.testing.assert_close(ours(images).view, theirs(images), atol=1e-9, rtol=0)


@torch.no_grad()
def test_it_equals_timms_in_training_mode():
    theirs = timms(112, depth=(1, 2, 1), **SMALL).train()
    ours = LeViT(3, LeViTOptions(depths=(1, 2, 1), image_size=112, **SMALL)).double().train()
    ours.load_state_dict(renamed(theirs.state_dict()), strict=True)
    images = formula_image(3, 3, 112, 112)
    torch.testing.assert_close(ours(images).view, theirs(images), atol=1e-9, rtol=0)
    for name, buffer in renamed(dict(theirs.named_buffers())).items():
        if "running" in name:
            torch.testing.assert_close(ours.get_buffer(name), buffer, atol=1e-9, rtol=0)


@torch.no_grad()
def test_a_smaller_image_uses_its_share_of_the_biases():
    ours = LeViT(3, LeViTOptions(depths=(1, 2, 1), image_size=240, **SMALL)).double().eval()
    ours.load_state_dict(formula_weights(ours))
    theirs = timms((96, 64), depth=(1, 2, 1), **SMALL)  # maps of 6x4, 3x2 and 2x1 tokens
    state = {}
    for name, tensor in renamed(theirs.state_dict()).items():
        largest = ours.state_dict()[name]
        if name.endswith("attention_biases"):
            side = int(largest.shape[1] ** 0.5)
            rows, columns = {24: (6, 4), 6: (3, 2), 2: (2, 1)}[tensor.shape[1]]
            largest = largest.view(-1, side, side)[:, :rows, :columns].flatten(1)
        state[name.replace("layers.", "stages.")] = largest
    theirs.load_state_dict(state, strict=True)
    images = formula_image(2, 3, 96, 64)
    torch.testing.assert_close(ours(images).view, theirs(images), atol=1e-9, rtol=0)


@torch.no_grad()
def test_an_update_of_the_biases_in_evaluation_mode_counts():
    network = LeViT(1, LeViTOptions(depths=(1, 1, 1), image_size=64, **SMALL)).eval()
    network.load_state_dict(formula_weights(network))
    images = formula_image(1, 1, 64, 64).float()
    before = network(images).view
    network.layers[0].blocks[0].attn.attention_biases.mul_(20)
    assert not torch.allclose(network(images).view, before, atol=1e-4)


@pytest.mark.parametrize("size", [(64, 64), (65, 33), (32, 112), (1, 1), (100, 100)])
@torch.no_grad()
def test_maps_are_as_large_as_announced(size):
    network = LeViT(1, LeViTOptions(depths=(1, 1, 1), image_size=112, **SMALL)).eval()
    assert network(torch.randn(2, 1, *size)).regions.shape[1] == (-(-size[0] // 64)) * (-(-size[1] // 64))
    maps = network.stages(torch.randn(2, 1, *size))
    assert [stage.shape[2:] for stage in maps] == [
        tuple(-(-side // stride) for side in size) for stride in (16, 32, 64)
    ]
    assert maps[-1].shape[2:] == network.map_size(*size)


def test_the_untrained_network_uses_all_its_layers():
    network = LeViT(1, LeViTOptions(depths=(1, 1, 1), image_size=112, **SMALL))
    network(torch.randn(2, 1, 112, 112)).view.square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in network.parameters() if parameter.ndim == 4)
    assert network.layers[0].blocks[0].mlp.ln2.bn.weight.min() == 1


@pytest.mark.parametrize(
    ("arguments", "size", "message"),
    [
        ({"image_size": 64}, (65, 32), "65x32 px .* built for up to 64 px; .* image_size"),
        ({"image_size": 0}, None, "image_size=0"),
        ({"depths": (1, 1)}, None, "depths=\\[1, 1\\].* give each as many stages"),
        ({"key_dim": 5}, None, "multiples of key_dim=5"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(arguments, size, message):
    with pytest.raises(InputError, match=message) as error:
        LeViT(1, LeViTOptions(**{"depths": (1, 1, 1)} | SMALL | arguments))(torch.zeros(1, 1, *size))
    assert "\n" not in str(error.value)
