"""What a frozen backbone gives, whatever it is given, moved into, cast to or put around."""

import copy

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_run import STEM, write_labelled_images, write_run
from torch import Tensor, nn

import ssl_lens
from ssl_lens.backbones import catalog
from ssl_lens.backbones.backbone import MapBackbone
from ssl_lens.backbones.layers.rings import ring_statistics
from ssl_lens.data.pixels.preprocess import Preprocess
from ssl_lens.data.pixels.stretch import no_stretch
from ssl_lens.errors import InputError
from ssl_lens.representation import export as export_module
from ssl_lens.representation.extract import extract
from ssl_lens.representation.frozen import FrozenBackbone, load_backbone, untrained_backbone

RAW = torch.from_numpy(np.random.default_rng(2).gamma(2.0, 1e-12, (3, 1, 40, 40)).astype(np.float32))


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("plain") / "run")


@pytest.fixture(scope="module")
def targets(plain_run, tmp_path_factory):
    """A run, a run with a steerable stem, and the export of the latter, folded."""
    folder = tmp_path_factory.mktemp("steerable")
    steerable = write_run(folder / "run", STEM)
    with pytest.MonkeyPatch.context() as monkeypatch:  # without ONNX, which takes seconds
        monkeypatch.setattr(export_module, "write_onnx", lambda *arguments: None)
        monkeypatch.setattr(export_module, "onnx_difference", lambda *arguments: None)
        export_module.export(steerable, folder / "out")
    return {"plain": plain_run, "steerable": steerable, "folded": folder / "out"}


KINDS = ["plain", "steerable", "folded"]


def test_a_run_gives_its_kept_backbone_frozen(plain_run):
    frozen = ssl_lens.load_backbone(plain_run)
    method = load_file(plain_run / "checkpoints" / "step_00000003" / "method.safetensors")
    for name, value in frozen.backbone.state_dict().items():
        torch.testing.assert_close(value, method[f"teacher.backbone.{name}"], rtol=0, atol=0)
    features, view, regions = frozen(RAW)
    assert features.shape == (3, 2 * (4 * 48 + 2 * 96))
    assert view.shape == (3, 96)
    assert regions.shape == (3, 16, 96)
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


def test_features_are_the_pooled_stages_and_what_is_extracted(plain_run):
    frozen = load_backbone(plain_run)
    assert frozen.pooling == "stage_rings"
    stages = frozen.backbone.stages(frozen.preprocess(RAW))
    expected = torch.cat([ring_statistics(maps) for maps in stages], dim=1)
    torch.testing.assert_close(frozen(RAW).features, expected, rtol=0, atol=0)
    torch.testing.assert_close(frozen.features(RAW), expected, rtol=0, atol=0)
    np.testing.assert_allclose(extract(frozen, RAW.numpy()), expected, rtol=0, atol=1e-6)
    own = frozen.backbone(frozen.preprocess(RAW))
    torch.testing.assert_close(frozen(RAW).view, own.view, rtol=0, atol=0)
    torch.testing.assert_close(frozen(RAW).regions, own.regions, rtol=0, atol=0)


@pytest.mark.parametrize(("pooling", "width"), [("view", 96), ("stats", 288), ("stages", 432), ("rings", 384)])
def test_the_pooling_is_chosen_at_load(plain_run, pooling, width):
    frozen = load_backbone(plain_run, pooling=pooling)
    assert frozen(RAW).features.shape == (3, width)
    torch.testing.assert_close(frozen.features(RAW), frozen(RAW).features, rtol=0, atol=0)


def test_an_unknown_pooling_is_refused(plain_run):
    with pytest.raises(InputError, match="pooling='max' is unknown; give view, stats"):
        load_backbone(plain_run, pooling="max")


def test_images_may_be_arrays_of_one_or_of_many(plain_run):
    frozen = load_backbone(plain_run)
    expected = frozen(RAW)
    for images in (RAW.numpy(), RAW[:, 0], RAW[:, 0].numpy(), RAW.numpy().astype(">f8"), RAW.double()):
        torch.testing.assert_close(frozen(images), expected, rtol=0, atol=2e-6)
    for one in (RAW[0], RAW[0, 0], RAW[0].numpy(), RAW[0, 0].numpy()):
        assert frozen(one).view.shape == (1, 96)
        torch.testing.assert_close(frozen(one).features, expected.features[:1], rtol=0, atol=1e-5)


def test_images_may_be_paths(plain_run, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path / "cache"))
    folder = write_labelled_images(tmp_path / "data", per_class=2)
    files = sorted(folder.rglob("*.npy"))
    frozen = load_backbone(plain_run)
    arrays = np.stack([np.load(file) for file in files])
    arrays[1, 3, 4] = np.nan
    np.save(files[1], arrays[1])
    arrays[1, 3, 4] = np.nanmedian(arrays[1])  # as the readers fill it
    expected = frozen(arrays)
    for images in (folder, str(folder), files, [str(file) for file in files]):
        torch.testing.assert_close(frozen(images), expected, rtol=0, atol=0)
    torch.testing.assert_close(frozen(files[2]), frozen(arrays[2]), rtol=0, atol=0)
    with pytest.raises(InputError, match="other.npy"):
        frozen([files[0], tmp_path / "other.npy"])


def test_images_of_two_channels_are_not_taken_for_images_of_one(tmp_path):
    frozen = load_backbone(write_run(tmp_path / "run", channels=2))
    two = torch.cat([RAW, RAW], dim=1)
    assert frozen(two[0]).view.shape == (1, 96)
    for wrong in (RAW, RAW[:, 0], RAW[0, 0], two.flatten()):
        with pytest.raises(InputError, match=r"takes real numbers \[B, 2, H, W\] or \[2, H, W\]"):
            frozen(wrong)


@pytest.mark.parametrize(
    "images", [RAW[None], RAW[:0], RAW.expand(3, 2, 40, 40), torch.zeros(2, 1, 40, 40, dtype=torch.complex64)]
)
def test_a_wrong_shape_is_one_line(plain_run, images):
    frozen = load_backbone(plain_run)
    for given in (images, images.numpy()):
        with pytest.raises(InputError) as error:
            frozen(given)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="exceeds the images of 16x16 px"):
        frozen(RAW[..., :16, :16])
    with pytest.raises(InputError, match="real numbers"):
        frozen(np.array([["a", "b"]]))


@pytest.mark.parametrize("kind", KINDS)
def test_in_a_module_that_trains_it_stays_frozen(targets, kind):
    frozen = load_backbone(targets[kind])
    expected = frozen(RAW).view
    network = nn.Sequential(frozen, nn.Identity()).train()
    assert network.training
    assert not any(module.training for module in frozen.modules())
    torch.testing.assert_close(network(RAW).view, expected, rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_half_precision_gives_the_features(targets, kind, dtype, tolerance):
    """A flux of 1e-12 is 0 in float16: the preprocessing must stay in float32."""
    frozen = load_backbone(targets[kind])
    expected = frozen(RAW)
    half = nn.Sequential(copy.deepcopy(frozen)).to(dtype)[0]
    assert {parameter.dtype for parameter in half.backbone.parameters()} == {dtype}
    for given, float32 in zip(half(RAW), expected, strict=True):
        assert given.dtype == dtype
        assert (given.float() - float32).abs().max() < tolerance * float32.abs().max()
    between = (expected.features[0] - expected.features[1]).abs().max()
    assert between > 2 * (half(RAW).features.float() - expected.features).abs().max()  # images stay apart
    torch.testing.assert_close(half.float().preprocess(RAW), frozen.preprocess(RAW), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["canonical_etn", "harmonic_net", "vit_small", "eqcvt_invariant", "cvt_13"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_networks_with_arithmetic_of_their_own_work_in_half_precision(name, dtype):
    """The canonical network's pose turns a picture of noise by more where its points are rounded to 8 bits."""
    tolerance = 0.3 if (name, dtype) == ("canonical_etn", torch.bfloat16) else 0.05
    torch.manual_seed(0)
    network = catalog.build_backbone(name, {}, in_channels=1, image_size=32)
    frozen, images = FrozenBackbone(Preprocess.plain(1), network, "view"), torch.rand(2, 1, 32, 32)
    expected = frozen(images).view
    view = frozen.to(dtype)(images).view
    assert view.dtype == dtype
    assert (view.float() - expected).abs().max() < tolerance * expected.abs().max()


@pytest.mark.parametrize("kind", KINDS)
def test_copies_are_equal_and_independent(targets, kind):
    frozen = load_backbone(targets[kind])
    frozen(RAW)
    other = copy.deepcopy(frozen)
    torch.testing.assert_close(other(RAW), frozen(RAW), rtol=0, atol=0)
    with torch.no_grad():
        for parameter in other.backbone.parameters():
            parameter.zero_()
    assert not torch.equal(other(RAW).features, frozen(RAW).features)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_of_an_image_is_that_of_finite_differences(targets, kind):
    """In float64 behind the preprocessing, whose own part is exact here: pixel and step are multiples of 2^-20."""
    backbone = load_backbone(targets[kind]).backbone
    preprocess = Preprocess(32, 1, no_stretch(1), mean=[0.5], std=[2.0], sky=[0.0])
    frozen = FrozenBackbone(preprocess, backbone).double()
    images = (torch.rand(2, 1, 40, 40, generator=torch.Generator().manual_seed(0)) * 2**8).round() / 2**8
    direction = torch.randn(frozen(images).features.shape[1], generator=torch.Generator().manual_seed(1)).double()

    def score(pixels: Tensor) -> Tensor:
        result = frozen(pixels)
        return (result.features @ direction).sum() + result.view.sum() + result.regions.square().sum()

    leaf = images.clone().requires_grad_()
    for _ in range(2):  # a second backward works, too
        leaf.grad = None
        score(leaf).backward()
    step = 2**-12
    for i, y, x in ((0, 12, 20), (1, 20, 21), (1, 30, 9)):
        ends = []
        for sign in (1, -1):
            moved = images.clone()
            moved[i, 0, y, x] += sign * step
            ends.append(score(moved).item())
        assert leaf.grad[i, 0, y, x].item() == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-4)
    assert leaf.grad[0, 0, 0, 0] == 0  # cropped away


def test_gradients_of_a_constant_image_are_finite(plain_run):
    frozen = load_backbone(plain_run)
    image = torch.full((1, 1, 40, 40), 1e-12, requires_grad=True)
    frozen(image).features.sum().backward()
    assert image.grad.isfinite().all()


class OwnView(MapBackbone):
    """Its view is not the mean of its map."""

    def stages(self, images: Tensor) -> list[Tensor]:
        return [images]

    def forward(self, images: Tensor):
        own = super().forward(images)
        return own._replace(view=own.regions.amax(1))


def test_a_networks_own_view_is_kept():
    frozen = FrozenBackbone(Preprocess.plain(1), OwnView(in_channels=1, embed_dim=1, reduction=1))
    images = torch.rand(2, 1, 4, 4)
    assert torch.equal(frozen(images).view, images.amax((2, 3)))


def test_untrained_networks_are_seeded_and_the_runs_own_is_what_it_began_with(plain_run, targets):
    first, again, other = (untrained_backbone(plain_run, seed=seed) for seed in (0, 0, 1))
    name = "patch_embed.proj.weight"
    trained = load_backbone(plain_run).backbone.state_dict()[name]
    assert torch.equal(first.state_dict()[name], again.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], trained)
    for run in (plain_run, targets["steerable"]):
        began_with = load_file(run / "began_with.safetensors")
        fresh = untrained_backbone(run).state_dict()
        assert fresh.keys() == began_with.keys()
        assert all(torch.equal(fresh[key], began_with[key]) for key in fresh)


def test_an_export_starts_again_with_steerable_filters(targets):
    fresh, again = (untrained_backbone(targets["folded"], seed=0) for _ in range(2))
    assert not fresh.stem.folded
    filters = [network.stem.layers[0].conv.filter() for network in (fresh, again)]
    assert torch.equal(*filters)
    assert filters[0].std() > 0.01


def test_neither_run_nor_export(tmp_path):
    with pytest.raises(InputError, match="neither a run .* nor an export"):
        load_backbone(tmp_path)


def test_a_run_without_checkpoint(tmp_path):
    run = write_run(tmp_path / "run")
    (run / "checkpoints" / "step_00000003" / "method.safetensors").write_bytes(b"cut off")
    with pytest.raises(InputError, match="no whole checkpoint"):
        load_backbone(run)


def test_a_checkpoint_of_another_network(tmp_path):
    run, other = write_run(tmp_path / "run"), write_run(tmp_path / "other", "model.patch_size=2")
    (run / "backbone.json").write_text((other / "backbone.json").read_text())
    with pytest.raises(InputError, match="checkpoint of another network"):
        load_backbone(run)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"seed": 0}', '{"seed": 0, "backbone": {"depth": 3}}'])
def test_a_damaged_description_of_a_run_is_one_line(tmp_path, content):
    run = write_run(tmp_path / "run")
    (run / "backbone.json").write_text(content)
    for load in (load_backbone, untrained_backbone):
        with pytest.raises(InputError, match="backbone.json") as error:
            load(run)
        assert "\n" not in str(error.value)
