import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_run import write_labelled_images, write_run

from ssl_lens.data.images import load_images
from ssl_lens.errors import InputError
from ssl_lens.evaluation.finetune_command import finetune
from ssl_lens.evaluation.saved import BestNetwork, load_network


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def test_most_images_then_lowest_validation_loss_then_first():
    best = BestNetwork()
    for name, images, loss in [("a", 10, None), ("b", 10, None), ("c", 80, 0.5), ("d", 80, 0.3), ("e", 80, 0.4)]:
        best.offer(torch.nn.Identity(), {"name": name}, images=images, validation_loss=loss)
        if name == "b":
            assert best.outputs["name"] == "a"
    assert best.outputs["name"] == "d"


def test_a_saved_classifier_repeats_its_results_and_is_an_export(tmp_path):
    data = write_labelled_images(tmp_path / "data", per_class=30)
    options = f"--data {data} --labels-per-class all --seeds 1 --epochs 3 --lr 2e-3 --out out --save saved"
    assert finetune(["resnet_micro", "data.center_crop=32", "model.stages=2", *options.split()]) == 0
    preprocess, network, outputs = load_network("saved")
    assert outputs["classes"] == ["arc", "ring"]
    images = load_images(data)
    with torch.no_grad():
        logits = network(preprocess(torch.from_numpy(np.array(images.images))))
    (result,) = json.loads(Path("out/results.json").read_text())["results"]
    accuracy = (logits.argmax(1).numpy() == images.labels).mean()
    assert accuracy >= 0.8 * result["accuracy"]
    assert network.parameter_count == result["parameters"]
    again = f"saved --data {data} --labels-per-class 8 --seeds 1 --epochs 1 --out again"
    assert finetune(again.split()) == 0


def test_a_saved_regressor_knows_its_units(tmp_path):
    data = write_labelled_images(tmp_path / "data", per_class=20)
    names = [f"{name}/{i:03d}.npy" for name in ("arc", "ring") for i in range(20)]
    lines = [f"{name},{100 + i}" for i, name in enumerate(names)]
    (data / "targets.csv").write_text("\n".join(["name,t", *lines]))
    options = f"--data {data} --target t --labels 30 --pooling stats --seeds 1 --epochs 1 --out out --save saved"
    assert finetune(["resnet_micro", "model.stages=1", *options.split()]) == 0
    _, network, outputs = load_network("saved")
    assert outputs["targets"] == ["t"]
    assert 100 < outputs["mean"][0] < 140
    assert outputs["std"][0] == pytest.approx(40 / math.sqrt(12), rel=0.3)
    assert network.pooling == "stats"


def test_a_backbone_without_a_head(tmp_path):
    with pytest.raises(InputError, match="holds a backbone without a head"):
        load_network(write_run(tmp_path / "tiny"))
