"""timm's networks: their own maps, the sizes they take, and one line for what they do not."""

import copy
import json

import pytest
import timm
import torch

from ssl_lens.backbones import catalog
from ssl_lens.backbones.timm_backbone import TimmBackbone, TimmOptions
from ssl_lens.backbones.weights import load_pretrained
from ssl_lens.errors import InputError


def build(name: str, in_channels: int = 2, **options: int) -> TimmBackbone:
    torch.manual_seed(0)
    return catalog.build_backbone(f"timm/{name}", options, in_channels=in_channels, image_size=64)


@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
@torch.no_grad()
def test_the_last_map_is_as_large_as_announced_and_its_mean_is_the_view(name: str) -> None:
    backbone = build(name).eval()
    for size in ((64, 64), (32, 32)):
        images = torch.randn(2, 2, *size)
        view, regions, positions = backbone(images)
        maps = backbone.stages(images)
        assert maps[-1].shape == (2, backbone.embed_dim, *backbone.map_size(*size))
        torch.testing.assert_close(regions, maps[-1].flatten(2).mT)
        torch.testing.assert_close(view, maps[-1].mean(dim=(2, 3)))
        assert positions is None


@torch.no_grad()
def test_the_maps_are_timms_on_the_same_weights() -> None:
    theirs = timm.create_model("convnext_atto", features_only=True, in_chans=2).eval()
    ours = build("convnext_atto").eval()
    ours.body.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 2, 64, 64)
    for mine, expected in zip(ours.stages(images), theirs(images), strict=True):
        assert torch.equal(mine, expected)


def test_stages_keep_the_first_maps_and_drop_what_is_behind() -> None:
    whole, part = build("convnext_atto"), build("convnext_atto", stages=2)
    assert (whole.reduction, part.reduction) == (32, 8)
    assert part.map_size(64, 64) == (8, 8)
    assert sum(p.numel() for p in part.parameters()) < 0.2 * sum(p.numel() for p in whole.parameters())


@torch.no_grad()
def test_it_is_rebuilt_from_its_configuration_and_copied() -> None:
    backbone = build("vit_tiny_patch16_224", stages=1).eval()
    again = catalog.backbone_from_config(json.loads(json.dumps(catalog.backbone_config(backbone)))).eval()
    again.load_state_dict(backbone.state_dict(), strict=True)
    images = torch.randn(1, 2, 64, 64)
    assert torch.equal(again(images).view, backbone(images).view)
    assert torch.equal(copy.deepcopy(backbone)(images).view, backbone(images).view)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("convnext_ato", {}, "timm has no network 'convnext_ato'; the nearest are convnext_atto"),
        ("hf_hub:timm/resnet18", {}, "timm has no network 'hf_hub:timm/resnet18'"),
        ("resnet10t", {"stages": 6}, "stages=6 is more than the 5 maps of timm/resnet10t; use stages=5 or fewer"),
        ("resnet10t", {"patch_size": 2}, "patch_size is not an option of timm/resnet10t, which has image_size, stages"),
        ("resnet10t", {"image_size": 0}, "image_size=0 should be an integer, 1 or more"),
    ],
)
def test_what_is_not_there_is_one_line(name: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(InputError) as error:
        build(name, **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_size_that_the_network_refuses_is_one_line() -> None:
    backbone = build("gcvit_xxtiny")  # its windows are those of the size it is built for
    assert backbone.map_size(64, 64) == (2, 2)
    with pytest.raises(InputError, match=r"image size 96x64 px is refused by timm/gcvit_xxtiny \(.*\); use another"):
        backbone(torch.zeros(1, 2, 96, 64))


def test_pretrained_weights_without_a_connection_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **arguments: object) -> None:
        raise ConnectionError("no route to host\nmore of it")

    backbone = build("resnet10t")
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(InputError, match=r"timm's weights of resnet10t cannot be had \(no route to host\); go online"):
        load_pretrained(backbone)


def test_pretrained_weights_are_loaded_and_draw_no_random_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = build("resnet10t")
    create, asked = timm.create_model, []

    def pretrained(network: str, *, pretrained: bool, **arguments: object) -> torch.nn.Module:
        asked.append(pretrained)
        return create(network, pretrained=False, **arguments)

    monkeypatch.setattr(timm, "create_model", pretrained)
    before, state = copy.deepcopy(backbone.state_dict()), torch.random.get_rng_state()
    load_pretrained(backbone)
    assert asked == [True]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert any(not torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


def test_only_timms_networks_have_weights_to_fetch() -> None:
    backbone = catalog.build_backbone("swin_micro", {}, in_channels=1, image_size=64)
    with pytest.raises(InputError, match="only networks of timm have pretrained weights"):
        load_pretrained(backbone)


def test_its_options_are_those_of_the_catalogue() -> None:
    assert catalog.options_of("timm/resnet18") is TimmOptions
    assert catalog.has_pretrained_weights("timm/resnet18")
    assert not catalog.has_pretrained_weights("resnet18")


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("resnet18", (1, None)),
        ("vit_tiny_patch16_224", (16, None)),
        ("convnext_atto", (1, None)),
        ("beit_base_patch16_224", (1, (64, 64))),
    ],
)
def test_how_images_are_cut_for_it_is_found_by_trying(name: str, rule: tuple[int, tuple[int, int] | None]) -> None:
    with torch.device("meta"):
        backbone = TimmBackbone(1, name, TimmOptions(image_size=64))
    assert backbone.size_rule == rule
