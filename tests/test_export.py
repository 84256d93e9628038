import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_run import STEM, write_run

import ssl_lens
from ssl_lens.errors import InputError
from ssl_lens.export import ONNX, WEIGHTS, export, load_backbone, untrained_backbone

RAW = torch.from_numpy(np.random.default_rng(2).gamma(2.0, 1e-12, (3, 1, 40, 40)).astype(np.float32))
NOT_NEEDED = "e2cnn pydantic lightly accelerate faiss sklearn matplotlib lenstronomy astropy ruamel onnx onnxruntime"


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("plain") / "run")


@pytest.fixture(scope="module")
def steerable_run(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("steerable") / "run", STEM)


@pytest.fixture(scope="module")
def exported(steerable_run) -> Path:
    """The export of the steerable run, whose own check has passed."""
    out = steerable_run.parent / "export"
    check = export(steerable_run, out)
    assert check.weights <= 1e-5
    assert check.onnx is None or check.onnx <= 1e-5
    return out


def test_a_run_gives_its_teacher_frozen(plain_run):
    frozen = ssl_lens.load_backbone(plain_run)
    teacher = load_file(plain_run / "checkpoints" / "step_00000003" / "teacher.safetensors")
    for name, value in frozen.backbone.state_dict().items():
        torch.testing.assert_close(value, teacher[f"backbone.{name}"], rtol=0, atol=0)
    view, regions = frozen(RAW.clone().requires_grad_())
    assert not view.requires_grad
    assert view.shape == (3, 96)
    assert regions.shape == (3, 16, 96)
    assert [tuple(stage.shape) for stage in frozen.stages(RAW)] == [(3, 48, 8, 8), (3, 96, 4, 4)]
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


def test_a_frozen_backbone_refuses_to_train(plain_run):
    frozen = load_backbone(plain_run)
    with pytest.raises(RuntimeError, match="does not train"):
        frozen.train()
    assert not any(module.training for module in frozen.eval().modules())


def test_export_is_folded_and_gives_the_runs_features(steerable_run, exported):
    own, loaded = load_backbone(steerable_run), load_backbone(exported)
    assert loaded.backbone.stem.folded
    expected, features = own(RAW), loaded(RAW)
    assert expected.view.std() > 0.1
    torch.testing.assert_close(features.view, expected.view, rtol=0, atol=1e-5)
    torch.testing.assert_close(features.regions, expected.regions, rtol=0, atol=1e-5)


def test_onnx_takes_any_number_of_raw_images(steerable_run, exported):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(exported / ONNX, providers=["CPUExecutionProvider"])
    expected = load_backbone(steerable_run)(RAW)
    for count in (1, 3):
        view, regions = session.run(["view_features", "region_features"], {"images": RAW[:count].numpy()})
        np.testing.assert_allclose(view, expected.view[:count], rtol=0, atol=1e-5)
        np.testing.assert_allclose(regions, expected.regions[:count], rtol=0, atol=1e-5)


def test_an_export_loads_with_torch_timm_numpy_and_safetensors_alone(exported):
    code = f"""
import sys
sys.modules.update(dict.fromkeys({NOT_NEEDED.split()!r}))  # importing one of these now fails
import torch, ssl_lens
print(ssl_lens.load_backbone({str(exported)!r})(torch.full((1, 1, 40, 40), 1e-12)).view.sum().item())
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    expected = load_backbone(exported)(torch.full((1, 1, 40, 40), 1e-12)).view.sum().item()
    assert float(process.stdout) == pytest.approx(expected, abs=1e-4)


def test_untrained_networks_are_seeded_and_not_the_trained_one(plain_run):
    first, again, other = (untrained_backbone(plain_run, seed=seed) for seed in (0, 0, 1))
    name = "patch_embed.proj.weight"
    trained = load_backbone(plain_run).backbone.state_dict()[name]
    assert torch.equal(first.state_dict()[name], again.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], trained)


def test_an_export_starts_afresh_with_steerable_filters(exported):
    fresh, again = (untrained_backbone(exported, seed=0) for _ in range(2))
    assert not fresh.stem.folded
    filters = [network.stem.layers[0].conv.filter() for network in (fresh, again)]
    assert torch.equal(*filters)
    assert filters[0].std() > 0.01


def test_neither_run_nor_export(tmp_path):
    with pytest.raises(InputError, match="neither a run .* nor an export"):
        load_backbone(tmp_path)
    with pytest.raises(InputError, match="neither a run"):
        export(tmp_path / "nowhere", tmp_path / "out")


def test_a_run_without_checkpoint(tmp_path):
    run = write_run(tmp_path / "run")
    (run / "checkpoints" / "step_00000003" / "teacher.safetensors").write_bytes(b"cut off")
    with pytest.raises(InputError, match="no intact checkpoint"):
        load_backbone(run)


def test_a_checkpoint_of_another_network(tmp_path):
    run, other = write_run(tmp_path / "run"), write_run(tmp_path / "other", "model.patch_size=2")
    (run / "recipe.yaml").write_text((other / "recipe.yaml").read_text())
    with pytest.raises(InputError, match="checkpoint of another network"):
        load_backbone(run)


def test_export_onto_a_file(plain_run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        export(plain_run, tmp_path / "file")


@pytest.mark.parametrize("damage", ["config cut off", "config of something else", "weights missing", "weights other"])
def test_a_damaged_export_is_one_line(exported, tmp_path, damage):
    for name in ("config.json", WEIGHTS):
        (tmp_path / name).write_bytes((exported / name).read_bytes())
    match damage:
        case "config cut off":
            (tmp_path / "config.json").write_text('{"backbone": ')
        case "config of something else":
            (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
        case "weights missing":
            (tmp_path / WEIGHTS).unlink()
        case "weights other":
            save_file({"weight": torch.zeros(3)}, tmp_path / WEIGHTS)
    with pytest.raises(InputError) as error:
        load_backbone(tmp_path)
    assert "\n" not in str(error.value)
