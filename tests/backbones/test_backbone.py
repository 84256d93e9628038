"""What every backbone promises, each one built small."""

import copy
import io
import json

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from ssl_lens.backbones import catalog
from ssl_lens.backbones.backbone import Encoder, Features, MapBackbone
from ssl_lens.backbones.beit import BEiT, BEiTOptions
from ssl_lens.backbones.canonical_etn import CanonicalETN, CanonicalETNOptions
from ssl_lens.backbones.crossformer import CrossFormer, CrossFormerOptions
from ssl_lens.backbones.cvt import CvT, CvTOptions
from ssl_lens.backbones.cvt_lens import CvTLens, CvTLensOptions
from ssl_lens.backbones.cvt_windowed import CvTWindowed, CvTWindowedOptions
from ssl_lens.backbones.eqcvt import EqCvT, EqCvTOptions
from ssl_lens.backbones.eqcvt_invariant import EqCvTInvariant, EqCvTInvariantOptions
from ssl_lens.backbones.harmonic_net import HarmonicNet, HarmonicNetOptions
from ssl_lens.backbones.lens_wavelets import LensWavelets, LensWaveletsOptions
from ssl_lens.backbones.levit import LeViT, LeViTOptions
from ssl_lens.backbones.regionvit import RegionViT, RegionViTOptions
from ssl_lens.backbones.resnet import ResNet, ResNetOptions
from ssl_lens.backbones.steerable.stem import Stem, StemmedBackbone, StemOptions
from ssl_lens.backbones.steerable_cnn import SteerableCNN, SteerableCNNOptions
from ssl_lens.backbones.swin import Swin, SwinOptions
from ssl_lens.backbones.twins import TwinsOptions, TwinsSVT
from ssl_lens.backbones.vit import ViT, ViTOptions
from ssl_lens.errors import InputError


def swin(padding: str) -> Swin:
    return Swin(2, SwinOptions(8, depths=(2, 2, 1), num_heads=(1, 2, 2), patch_size=2, window_size=4, padding=padding))


def stemmed() -> StemmedBackbone:
    backbone = Swin(3, SwinOptions(8, depths=(2, 1), num_heads=(1, 2), patch_size=2, window_size=4))
    return StemmedBackbone(Stem(2, StemOptions("D4", fields=3, kernel_size=3, downsample=2)), backbone)


def windowed(padding: str) -> CvTWindowed:
    return CvTWindowed(
        2, CvTWindowedOptions((8, 8, 8), (7, 3, 3), (2, 2, 2), (1, 2, 2), (1, 1, 2), window_size=4, padding=padding)
    )


BACKBONES = {
    "beit": lambda: BEiT(2, BEiTOptions(16, depth=4, num_heads=2, patch_size=4, image_size=20)),
    "canonical_etn": lambda: CanonicalETN(2, CanonicalETNOptions(width=4, depths=(1, 1), pose_width=4, angles=16)),
    "crossformer": lambda: CrossFormer(2, CrossFormerOptions(48, depths=(1, 2), num_heads=(2, 4), group_size=4)),
    "cvt": lambda: CvT(2, CvTOptions((8, 12, 16), num_heads=(1, 2, 4), depths=(1, 1, 2))),
    "cvt_lens": lambda: CvTLens(2, CvTLensOptions((8, 12), num_heads=(1, 2), depths=(2, 1), head_dim=4)),
    "cvt_windowed_clamp": lambda: windowed("clamp"),
    "cvt_windowed_reference": lambda: windowed("reference"),
    "eqcvt": lambda: EqCvT(2, EqCvTOptions("C4")),
    "eqcvt_invariant": lambda: EqCvTInvariant(2, EqCvTInvariantOptions("C4", depth=1)),
    "eqcvt_lens_frame": lambda: EqCvTInvariant(2, EqCvTInvariantOptions("D4", 1, "lens_frame", 2)),
    "harmonic_net": lambda: HarmonicNet(2, HarmonicNetOptions(widths=(2, 3), embed_dim=4)),
    "lens_wavelets": lambda: LensWavelets(2, LensWaveletsOptions(octaves=3)),
    "levit": lambda: LeViT(2, LeViTOptions((16, 24), (2, 0), (2, 3), key_dim=8, image_size=32)),
    "regionvit": lambda: RegionViT(2, RegionViTOptions(16, depths=(1, 2), num_heads=(2, 4), window_size=3)),
    "resnet": lambda: ResNet(2, ResNetOptions(width=4, depths=(1, 1, 2))),
    "resnet_bottleneck": lambda: ResNet(2, ResNetOptions(width=4, depths=(1, 1), block="bottleneck")),
    "steerable_cnn": lambda: SteerableCNN(2, SteerableCNNOptions("D4", fields=(2, 3, 2))),
    "stemmed": stemmed,
    "swin_clamp": lambda: swin("clamp"),
    "swin_reference": lambda: swin("reference"),
    "twins": lambda: TwinsSVT(2, TwinsOptions((8, 16), (2, 2), (1, 2), (2, 1), patch_size=2, window_size=3)),
    "vit": lambda: ViT(2, ViTOptions(16, depth=4, num_heads=2, patch_size=4, image_size=20)),
}
ONE_SIZE = (BEiT,)  # refuses all but 20 px
OWN_VIEW = (BEiT, CvT, RegionViT, ViT)  # a class token, regional tokens, or a norm of the mean


class PointCloud(Encoder):
    """An encoder without maps: a handful of latent points, wherever the light is."""

    def __init__(self, in_channels: int, points: int, embed_dim: int) -> None:
        super().__init__(in_channels, embed_dim)
        self.weigh = nn.Conv2d(in_channels, points, 1)
        self.describe = nn.Linear(2 + in_channels, embed_dim)

    def forward(self, images: torch.Tensor) -> Features:
        height, width = images.shape[2:]
        weights = self.weigh(images).flatten(2).softmax(dim=2)
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        positions = weights @ torch.stack([x, y], dim=-1).flatten(0, 1).float()
        regions = self.describe(torch.cat([positions, weights @ images.flatten(2).mT], dim=2))
        return Features(regions.mean(dim=1), regions, positions)


def test_an_encoder_needs_no_maps():
    encoder = PointCloud(2, points=5, embed_dim=8)
    view, regions, positions = encoder(images())
    assert (view.shape, regions.shape, positions.shape) == ((3, 8), (3, 5, 8), (3, 5, 2))
    assert 0 <= positions.min() <= positions.max() <= 19
    assert encoder.head(4)(view).shape == (3, 4)
    assert not isinstance(encoder, MapBackbone)
    with pytest.raises(TypeError, match="abstract"):
        Encoder(2, 8)
    with pytest.raises(TypeError, match="abstract"):
        MapBackbone(2, 8, 4)


@pytest.fixture(params=BACKBONES)
def build(request: pytest.FixtureRequest):
    torch.manual_seed(0)
    return BACKBONES[request.param]


def images(size: int = 20, batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, 2, size, size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def warmed_up(backbone: MapBackbone) -> MapBackbone:
    """In evaluation mode, with batch-norm statistics that are not the initial ones."""
    backbone.train()(images() * 2 + 1)
    return backbone.eval()


@torch.no_grad()
def test_regions_are_the_last_map_row_by_row_and_the_view_is_their_mean_unless_it_has_its_own(build):
    backbone = warmed_up(build())
    for size in (20,) if isinstance(backbone, ONE_SIZE) else (8, 20, 32):
        view, regions, _ = backbone(images(size))
        last = backbone.stages(images(size))[-1]
        height, width = backbone.map_size(size, size)
        assert last.shape == (3, backbone.embed_dim, height, width)
        torch.testing.assert_close(regions[:, width - 1], last[:, :, 0, width - 1])
        torch.testing.assert_close(regions[:, -1], last[:, :, -1, -1])
        mean = regions.mean(dim=1)
        assert view.shape == mean.shape
        assert torch.allclose(view, mean, atol=1e-5) != isinstance(backbone, OWN_VIEW)


@torch.no_grad()
def test_an_image_has_the_same_features_alone_and_in_a_batch(build):
    backbone = warmed_up(build())
    together = backbone(images())
    torch.testing.assert_close(backbone(images()[1:2]).regions, together.regions[1:2], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_non_square_image_is_read_as_it_stands(build):
    wide = torch.randn(2, 2, 12, 20)
    backbone = warmed_up(build())
    if isinstance(backbone, ONE_SIZE):
        with pytest.raises(InputError, match="12x20"):
            backbone(wide)
        return
    assert backbone(wide).regions.shape[1] == np.prod(backbone.map_size(12, 20))


@torch.no_grad()
def test_copies_and_state_dicts_reproduce_the_features_in_either_mode(build):
    backbone = warmed_up(build())
    expected = backbone(images()).view
    torch.testing.assert_close(copy.deepcopy(backbone)(images()).view, expected, atol=0, rtol=0)
    for saved_in_training, loaded_in_training in ((True, False), (False, True)):
        buffer = io.BytesIO()
        torch.save(backbone.train(saved_in_training).state_dict(), buffer)
        buffer.seek(0)
        other = build().train(loaded_in_training)
        other.load_state_dict(torch.load(buffer, weights_only=True), strict=True)
        torch.testing.assert_close(other.eval()(images()).view, expected, atol=0, rtol=0)


def test_every_parameter_gets_a_gradient_and_a_second_backward_works(build):
    backbone = build().train()
    if not list(backbone.parameters()):
        pytest.skip("nothing to train")
    loss = (backbone(images()).regions * torch.linspace(-1, 1, backbone.embed_dim)).square().mean()
    gradients = torch.autograd.grad(loss, list(backbone.parameters()), create_graph=True)
    assert all(gradient.isfinite().all() and gradient.abs().max() > 0 for gradient in gradients)
    sum(gradient.square().sum() for gradient in gradients).backward()
    assert all(parameter.grad.isfinite().all() for parameter in backbone.parameters())


@torch.no_grad()
def test_bfloat16_autocast_stays_close_to_float32(build):
    backbone = warmed_up(build())
    expected = backbone(images()).view
    with torch.autocast("cpu", torch.bfloat16):
        view = backbone(images()).view
    assert (view.float() - expected).norm() / expected.norm() < 0.03


@torch.no_grad()
def test_the_configuration_rebuilds_the_architecture(build):
    backbone = build()
    again = catalog.backbone_from_config(json.loads(json.dumps(catalog.backbone_config(backbone))))
    again.load_state_dict(backbone.state_dict(), strict=True)
    assert again.config() == backbone.config()
    torch.testing.assert_close(again.eval()(images()).view, backbone.eval()(images()).view, atol=0, rtol=0)


@pytest.mark.filterwarnings("ignore")  # of the exporter about itself
@pytest.mark.parametrize("name", ["resnet", "stemmed", pytest.param("swin_reference", marks=pytest.mark.slow)])
def test_onnx_gives_the_features_of_the_folded_backbone(name, tmp_path):
    torch.manual_seed(0)
    backbone = warmed_up(BACKBONES[name]())
    path = tmp_path / "backbone.onnx"
    dynamic = {"images": {0: torch.export.Dim("batch", min=1, max=64)}}
    torch.onnx.export(backbone.fold(), (images(),), path, dynamo=True, dynamic_shapes=dynamic, verbose=False)
    other_batch = images(batch=5)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    view, regions = session.run(None, {"images": other_batch.numpy()})
    with torch.no_grad():
        expected = backbone(other_batch)
    np.testing.assert_allclose(view, expected.view.numpy(), atol=1e-5)
    np.testing.assert_allclose(regions, expected.regions.numpy(), atol=1e-5)


def test_images_of_another_channel_count_are_refused_in_one_line(build):
    with pytest.raises(InputError, match=r"shape \[1, 3, 20, 20\]; the backbone needs \[B, 2, H, W\]"):
        build()(torch.zeros(1, 3, 20, 20))


def test_what_its_rule_leaves_of_an_image_is_taken(build):
    """Of sizes from 20 px on, and no pixel more is cut than its multiple asks for."""
    backbone = build()
    multiple, largest = backbone.size_rule
    for height, width in ((20, 20), (21, 23), (31, 26), (40, 39), (45, 22)):
        kept = [side // multiple * multiple for side in (height, width)]
        if largest is not None:
            kept = [min(side, most // multiple * multiple) for side, most in zip(kept, largest, strict=True)]
        assert min(backbone.map_size(*kept)) > 0
        if kept != [height, width] and not isinstance(backbone, StemmedBackbone):  # which takes a few more
            with pytest.raises(InputError):
                backbone.map_size(height, width)
