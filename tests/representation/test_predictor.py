"""A saved network says what it said before it was saved; a linear probe is one linear layer."""

import csv
import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tiny_run import write_labelled_images, write_run

from ssl_lens.backbones.lens_wavelets import LensWavelets
from ssl_lens.data.images import load_images
from ssl_lens.errors import InputError
from ssl_lens.representation import export as export_module
from ssl_lens.representation.export import write_export
from ssl_lens.representation.extract import extract, preprocessed
from ssl_lens.representation.frozen import load_backbone
from ssl_lens.representation.prediction import predict
from ssl_lens.representation.predictor import (
    Classes,
    Predictor,
    Targets,
    fresh_predictor,
    linear_head,
    load_predictor,
    save_predictor,
)

SIZE = (40, 40)


def classifier_head(scale, classify):
    """Of a logistic regression, whose one logit z for two classes becomes -z/2 and z/2."""
    weight, bias = classify.coef_, classify.intercept_
    if len(weight) == 1:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return linear_head(weight, bias, mean=scale.mean_, scale=scale.scale_)


@pytest.fixture(autouse=True)
def _own_cache_and_no_onnx(tmp_path, monkeypatch):
    """ONNX takes seconds, and is that of any export."""
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(export_module, "write_onnx", lambda *arguments: None)
    monkeypatch.setattr(export_module, "onnx_difference", lambda *arguments: None)


@pytest.fixture
def frozen(tmp_path):
    return load_backbone(write_run(tmp_path / "run"))


@pytest.fixture
def images(tmp_path):
    names = ("arc", "ring", "smooth")
    return load_images(write_labelled_images(tmp_path / "data", per_class=6, classes=names))


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_outputs_become_probabilities_or_numbers_in_their_units():
    logits = torch.tensor([[0.0, math.log(3.0)]])
    np.testing.assert_allclose(Classes(("a", "b")).values(logits), [[0.25, 0.75]], rtol=1e-7)
    targets = Targets(("r_arcsec", "mass_msun"), mean=(1.0, 9.0), std=(0.5, 2.0), log=(False, True))
    np.testing.assert_allclose(targets.values(torch.tensor([[2.0, -0.5], [200.0, 0.0]])), [[2, 1e8], [101, 1e9]])


@pytest.mark.parametrize("classes", [2, 3])
def test_a_logistic_regression_of_standardised_features_is_one_linear_layer(classes):
    """Of features whose mean is a thousand times their scatter, where float32 would lose what the probe looks at."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, 60)
    features = (1e3 + rng.normal(size=(60, 5)) + labels[:, None] * rng.normal(size=5)).astype(np.float32)
    probe = make_pipeline(StandardScaler(), LogisticRegression()).fit(features.astype(np.float64), labels)
    scale, classify = probe[0], probe[1]
    head = classifier_head(scale, classify)
    with torch.no_grad():
        probabilities = head(torch.from_numpy(features).double()).softmax(1).numpy()
    np.testing.assert_allclose(probabilities, probe.predict_proba(features.astype(np.float64)), atol=1e-10)


def test_a_ridge_regression_is_one_linear_layer():
    rng = np.random.default_rng(0)
    features, values = rng.normal(5, 2, (40, 3)), rng.normal(size=(40, 2))
    probe = make_pipeline(StandardScaler(), Ridge()).fit(features, values)
    head = linear_head(probe[1].coef_, probe[1].intercept_, mean=probe[0].mean_, scale=probe[0].scale_)
    with torch.no_grad():
        np.testing.assert_allclose(head(torch.from_numpy(features)), probe.predict(features), atol=1e-12)


@pytest.mark.parametrize("names", [("arc", "ring"), ("arc", "ring", "smooth")])
def test_a_saved_probe_predicts_what_it_predicted(frozen, tmp_path, names):
    data = write_labelled_images(tmp_path / "data", per_class=6, classes=names)
    images = load_images(data)
    features = extract(frozen, images.images)
    probe = make_pipeline(StandardScaler(), LogisticRegression()).fit(features, images.labels)
    scale, classify = probe[0], probe[1]
    head = classifier_head(scale, classify)
    network = Predictor(frozen.backbone, head, frozen.pooling)
    save_predictor(tmp_path / "saved", frozen.preprocess, network, Classes(images.classes), image_size=SIZE)
    expected = probe.predict_proba(features)

    saved = load_predictor(tmp_path / "saved")
    assert saved.outputs == Classes(images.classes)
    np.testing.assert_allclose(saved.predict(images.images, batch_size=4), expected, rtol=0, atol=1e-6)
    result = predict(tmp_path / "saved", data, tmp_path / "new" / "scores.csv")
    rows = rows_of(tmp_path / "new" / "scores.csv")
    assert list(rows[0]) == ["name", "class", *(f"score_{name}" for name in names)]
    assert [row["name"] for row in rows] == list(images.names) == list(result.names)
    scores = np.array([[float(row[f"score_{name}"]) for name in names] for row in rows])
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(scores, result.values)
    assert [row["class"] for row in rows] == [names[i] for i in expected.argmax(1)]
    torch.testing.assert_close(  # it is an export, too
        load_backbone(tmp_path / "saved").features(torch.from_numpy(np.asarray(images.images))),
        torch.from_numpy(features),
        rtol=0,
        atol=1e-5,
    )


@pytest.mark.parametrize("pooling", ["view", "stage_rings"])
def test_a_saved_network_predicts_what_it_predicted(frozen, images, tmp_path, pooling):
    prepared = preprocessed(frozen.preprocess, images.images)
    torch.manual_seed(3)
    network = fresh_predictor(frozen.backbone, 2, pooling, prepared[:1])
    assert all(parameter.requires_grad for parameter in network.parameters())
    targets = Targets(("t", "u"), mean=(3.0, -1.0), std=(2.0, 0.5), log=(False, True))
    save_predictor(tmp_path / "saved", frozen.preprocess, network.eval(), targets, image_size=SIZE)
    assert all(parameter.requires_grad for parameter in network.parameters())
    with torch.no_grad():
        outputs = network(prepared).double().numpy()
    expected = np.stack([3 + 2 * outputs[:, 0], 10 ** (-1 + 0.5 * outputs[:, 1])], axis=1)
    predict(tmp_path / "saved", tmp_path / "data", tmp_path / "values.csv")
    values = [[float(row["t"]), float(row["u"])] for row in rows_of(tmp_path / "values.csv")]
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    saved = load_predictor(tmp_path / "saved")
    assert saved.network.pooling == pooling
    assert saved.network.parameter_count == network.parameter_count
    assert not any(parameter.requires_grad for parameter in saved.network.parameters())


def test_a_saved_network_still_averages_over_quarter_turns(frozen, images, tmp_path):
    weight = np.random.default_rng(0).normal(size=(3, 96))
    network = Predictor(frozen.backbone, linear_head(weight, np.zeros(3)), "view", quarter_turns=True)
    save_predictor(tmp_path / "saved", frozen.preprocess, network, Classes(images.classes), image_size=SIZE)
    saved = load_predictor(tmp_path / "saved")
    prepared = preprocessed(frozen.preprocess, images.images)
    with torch.no_grad():
        alone = [frozen.backbone(prepared.rot90(turn, (2, 3))).view.double().numpy() @ weight.T for turn in range(4)]
    assert abs(alone[1] - alone[0]).max() > 1e-3
    np.testing.assert_allclose(saved.predict(images.images), softmax(np.mean(alone, axis=0), axis=1), atol=1e-5)


def test_a_plain_export_into_the_folder_takes_the_head_away(frozen, images, tmp_path):
    network = fresh_predictor(frozen.backbone, 3, "view", preprocessed(frozen.preprocess, images.images[:1]))
    save_predictor(tmp_path / "saved", frozen.preprocess, network, Classes(images.classes), image_size=SIZE)
    write_export(frozen, tmp_path / "saved", SIZE)
    with pytest.raises(InputError, match="holds a backbone without a head"):
        load_predictor(tmp_path / "saved")


def test_what_cannot_be_predicted_is_one_line_and_writes_nothing(frozen, images, tmp_path):
    with pytest.raises(InputError, match="holds a backbone without a head"):
        predict(tmp_path / "run", tmp_path / "data", tmp_path / "scores.csv")
    network = fresh_predictor(frozen.backbone, 3, "view", preprocessed(frozen.preprocess, images.images[:1]))
    save_predictor(tmp_path / "saved", frozen.preprocess, network, Classes(images.classes), image_size=SIZE)
    with pytest.raises(InputError, match="ends in .csv"):
        predict(tmp_path / "saved", tmp_path / "data", tmp_path / "scores.parquet")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        predict(tmp_path / "saved", tmp_path / "data", tmp_path / "file" / "scores.csv")
    with pytest.raises(InputError):
        predict(tmp_path / "saved", tmp_path / "nowhere", tmp_path / "scores.csv")
    assert not list(tmp_path.glob("*.csv"))


DAMAGES = {
    "cut off": lambda content: None,
    "no head": lambda content: content.pop("head"),
    "unknown head": lambda content: content.update(head="os.system"),
    "another head": lambda content: content.update(head="normalised_linear"),
    "no quarter turns": lambda content: content.pop("quarter_turns"),
    "quarter turns that are a number": lambda content: content.update(quarter_turns=1),
    "no classes": lambda content: content.pop("classes"),
    "four classes": lambda content: content["classes"].append("d"),
    "targets": lambda content: content.update(classes=None, targets=["a"], mean=[0.0, 1.0], std=[1.0], log=[False]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_predictor_is_one_line(frozen, images, tmp_path, damage):
    network = Predictor(frozen.backbone, linear_head(np.ones((3, 96)), np.zeros(3)), "view")
    save_predictor(tmp_path / "saved", frozen.preprocess, network, Classes(images.classes), image_size=SIZE)
    file = tmp_path / "saved" / "outputs.json"
    content = json.loads(file.read_text())
    DAMAGES[damage](content)
    file.write_text(json.dumps(content)[: 20 if damage == "cut off" else None])
    with pytest.raises(InputError) as error:
        load_predictor(tmp_path / "saved")
    assert "\n" not in str(error.value)


def test_images_of_another_size_that_give_other_features_are_refused(frozen, images, tmp_path):
    network = Predictor(frozen.backbone, linear_head(np.ones((3, 5)), np.zeros(3)), "stage_rings")
    save_predictor(tmp_path / "saved", frozen.preprocess, network, Classes(images.classes), image_size=SIZE)
    with pytest.raises(InputError, match="images of 40x40 px give 768 features, but the head was trained on 5"):
        load_predictor(tmp_path / "saved").predict(images.images)


def test_probes_are_saved_in_float64_and_heads_as_they_are(frozen, images, tmp_path):
    probe = Predictor(frozen.backbone, linear_head(np.ones((3, 96)), np.zeros(3)), "view")
    save_predictor(tmp_path / "saved", frozen.preprocess, probe, Classes(images.classes), image_size=SIZE)
    assert load_file(tmp_path / "saved" / "head.safetensors")["weight"].dtype == torch.float64
    assert next(load_predictor(tmp_path / "saved").network.head.parameters()).dtype == torch.float64


def test_a_head_alone_is_trained_on_a_network_without_weights():
    network = fresh_predictor(LensWavelets(1), 3, "log_rings", torch.zeros(1, 1, 40, 40))
    assert network.parameter_count == 2 * 150 + 150 * 3 + 3  # norm and layer
    assert network(torch.randn(2, 1, 40, 40)).shape == (2, 3)
