"""Exports, runs and predictors from strangers: each is refused by one line that names the file, at once."""

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hostile import NO_JSON, UNREADABLE, place, refused
from safetensors.torch import load_file, save_file
from tiny_run import write_run

from ssl_lens.representation import export as export_module
from ssl_lens.representation.description import load_preprocess, raw_size
from ssl_lens.representation.export import export
from ssl_lens.representation.frozen import load_backbone, untrained_backbone
from ssl_lens.representation.predictor import Classes, Predictor, Targets, linear_head, load_predictor, save_predictor

WEIGHTS = "backbone.safetensors"


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A run, its export, and its backbone under a linear head of two classes."""
    folder = tmp_path_factory.mktemp("sound")
    with pytest.MonkeyPatch.context() as monkeypatch:  # without ONNX, which takes seconds
        monkeypatch.setattr(export_module, "write_onnx", lambda *arguments: None)
        monkeypatch.setattr(export_module, "onnx_difference", lambda *arguments: None)
        run = write_run(folder / "run")
        export(run, folder / "export")
        frozen = load_backbone(run)
        network = Predictor(frozen.backbone, linear_head(np.ones((2, 96)), np.zeros(2)), "view")
        save_predictor(folder / "predictor", frozen.preprocess, network, Classes(("a", "b")), image_size=(40, 40))
    return folder


@pytest.fixture
def copied(sound, tmp_path):
    """Gives a copy of one of them, for damage."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(sound / name, tmp_path / name))

    return copy


def test_copies_are_sound(copied):
    for name in ("run", "export"):
        load_backbone(copied(name))
    assert len(load_predictor(copied("predictor").with_name("predictor")).outputs) == 2


@pytest.mark.parametrize("what", NO_JSON)
@pytest.mark.parametrize("name", ["export/config.json", "run/backbone.json", "run/preprocess.json"])
def test_what_is_not_a_description(copied, name, what):
    folder, _, file = name.partition("/")
    path = copied(folder)
    place(path / file, what)
    refused(lambda: load_backbone(path), file)
    if file != "preprocess.json":
        refused(lambda: untrained_backbone(path), file)
    if file != "backbone.json":
        refused(lambda: load_preprocess(path), file)


@pytest.mark.parametrize("what", NO_JSON)
def test_what_does_not_say_how_large_the_images_are(copied, what):
    path = copied("run")
    place(path / "images.json", what)
    refused(lambda: raw_size(path), "images.json")


@pytest.mark.parametrize("shape", [None, 3, [1], [1, 0, 40], [1, -40, 40], [1, 40.0, 40], [1, 10**9, 10**9], "140"])
def test_sizes_that_images_cannot_have(copied, shape):
    path = copied("run")
    (path / "images.json").write_text(json.dumps({"shape": shape, "names": []}))
    refused(lambda: raw_size(path), "images.json")


def changed(folder: Path, file: str, *keys: str, value: object) -> Path:
    """A folder of which a value in a JSON file is another; a key is removed where it is `...`."""
    content = part = json.loads((folder / file).read_text())
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    if value is ...:
        del part[keys[-1]]
    (folder / file).write_text(json.dumps(content))
    return folder


PREPROCESS = {
    "mean": [
        None,
        0,
        "0",
        [],
        ["0"],
        [None],
        [[0.0]],
        [float("nan")],
        [float("inf")],
        [1e300],
        [0.0] * 9,
        {"0": 0},
        ...,
    ],
    "std": [[0.0], [-1.0], [float("nan")], [1e-320], [10**400], "1", ...],
    "sky": [[float("nan")], [], ["sky"], ...],
    "bin": [0, -1, 1.5, "2", None, True, 10**9, float("nan"), ...],
    "center_crop": [0, -32, 31.5, "32", [32], 10**30, True, ...],
    "stretch": [None, "asinh", {}, {"kind": "asinh"}, {"kind": "exec", "low": [0.0], "scale": [1.0]}, [], ...],
    "policy": [None, [], {}, {"mask_value": "x", "max_masked": 0.1, "sizes": "refuse", "size": None}, ...],
}


@pytest.mark.parametrize("folder", ["run", "export"])
@pytest.mark.parametrize("key", PREPROCESS)
def test_a_preprocessing_that_cannot_be(copied, folder, key):
    path = copied(folder)
    file, parents = ("preprocess.json", ()) if folder == "run" else ("config.json", ("preprocess",))
    whole = (path / file).read_text()
    for value in PREPROCESS[key]:
        refused(lambda value=value: load_preprocess(changed(path, file, *parents, key, value=value)), file)
        (path / file).write_text(whole)


SECTIONS = {
    ("stretch", "low"): [[float("nan")], [1e300], [], ["0"], [0.0, 0.0], None],
    ("stretch", "scale"): [[0.0], [-1.0], [float("inf")], [1e-320], [], None],
    ("stretch", "kind"): [None, 1, "none\n", ["asinh"]],
    ("stretch", "more"): [1],
    ("policy", "mask_value"): ["100", [], float("nan"), True],
    ("policy", "max_masked"): [1, -0.1, "0", None],
    ("policy", "sizes"): ["grow", None, ["crop"]],
    ("policy", "size"): [40, [40], [40, 40, 40], [0, 40], ["40", "40"], [40.5, 40]],
}


@pytest.mark.parametrize("keys", SECTIONS, ids=".".join)
def test_sections_of_a_preprocessing_that_cannot_be(copied, keys):
    path = copied("run")
    whole = (path / "preprocess.json").read_text()
    for value in SECTIONS[keys]:
        refused(lambda value=value: load_preprocess(changed(path, "preprocess.json", *keys, value=value)), "preprocess")
        (path / "preprocess.json").write_text(whole)


NETWORK = {
    "architecture": [None, 3, ["swin"], {}, "os.system", "swin\n", "timm_backbone", "stemmed", ...],
    "in_channels": [0, -1, 1.0, "1", None, True, 10**12, float("nan"), [1], ...],
    "embed_dim": [0, -48, "wide", 48.0, None, 48_000_000, 10**400, [48], 24],
    "depths": [[], 2, [0, 2], [2, 2.5], "22", [1_000_000, 2], [10**12, 2], [-1, 2], [2] * 100_000, None, [[2], 2]],
    "num_heads": [[0, 1], [5, 7], None, [10**9, 1]],
    "window_size": [0, -7, 10**6, 20_000, "7", None],
    "patch_size": [0, 10**6, 4.5, None],
    "stages": [0, 9, "2", -1],
    "drop_path": [-1, 1.5, float("nan"), "0"],
    "command": ["rm"],
}


@pytest.mark.parametrize("folder", ["run", "export"])
@pytest.mark.parametrize("key", NETWORK)
def test_a_network_that_cannot_be(copied, folder, key):
    path = copied(folder)
    file = "backbone.json" if folder == "run" else "config.json"
    whole = (path / file).read_text()
    for value in NETWORK[key]:
        refused(lambda value=value: load_backbone(changed(path, file, "backbone", key, value=value)), str(path))
        (path / file).write_text(whole)


def stemmed(depth: int) -> dict[str, object]:
    inner: dict[str, object] = {"architecture": "swin", "in_channels": 1}
    for _ in range(depth):
        stem = {"in_channels": 1, "group": "C4", "fields": 1, "depth": 1, "kernel_size": 3, "downsample": 1}
        inner = {"architecture": "stemmed", "stem": {**stem, "pooling": "max", "folded": True}, "backbone": inner}
    return inner


OTHERS = {
    "stems in one another": stemmed(300),
    "a large network of timm's": {
        "architecture": "timm_backbone",
        "in_channels": 1,
        "network": "vit_giant_patch14_224",
    },
    "a network of a hub": {"architecture": "timm_backbone", "in_channels": 1, "network": "hf-hub:stranger/weights"},
    "a network of no name": {"architecture": "timm_backbone", "in_channels": 1, "network": None},
    "images of a million pixels": {
        **{"architecture": "timm_backbone", "in_channels": 1, "network": "vit_tiny_patch16_224"},
        "image_size": 1_000_000,
    },
    "filters of a million rings": {"architecture": "harmonic_net", "in_channels": 1, "kernel_size": 1_000_001},
    "a million angles": {"architecture": "canonical_etn", "in_channels": 1, "angles": 1_000_000, "radii": 1_000_000},
    "steerable filters": {"architecture": "steerable_cnn", "in_channels": 1, "folded": False},
    "nothing": {},
}


@pytest.mark.parametrize("network", OTHERS)
def test_other_networks(copied, network):
    path = changed(copied("export"), "config.json", "backbone", value=OTHERS[network])
    refused(lambda: load_backbone(path), str(path))


@pytest.mark.parametrize(("key", "value"), [("seed", s) for s in (None, -1, "0", 1.5, True, 2**70)])
def test_seeds_that_cannot_be(copied, key, value):
    path = changed(copied("run"), "backbone.json", key, value=value)
    refused(lambda: untrained_backbone(path), "backbone.json")


@pytest.mark.parametrize("pooling", [None, 1, "__import__", ["view"], {}])
def test_poolings_that_cannot_be(copied, pooling):
    path = changed(copied("export"), "config.json", "pooling", value=pooling)
    refused(lambda: load_backbone(path), "config.json")


@pytest.mark.parametrize("what", [*UNREADABLE, "password file", "list"])
def test_what_is_not_weights(copied, what):
    path = copied("export")
    place(path / WEIGHTS, what)
    refused(lambda: load_backbone(path), WEIGHTS)
    refused(lambda: untrained_backbone(path), WEIGHTS)


def header(content: object, data: bytes = b"", *, size: int | None = None) -> bytes:
    """A safetensors file of any header."""
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data


def tensor(dtype: str, shape: list[int], start: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


HEADERS = {
    "of exabytes": header({}, size=1 << 62),
    "that is negative": header({}, size=(1 << 64) - 1),
    "without end": header(b'{"a": '),
    "that is deep": header(b'{"a":' * 50_000),
    "that is a list": header([1]),
    "of an unknown type": header({"a": tensor("F31", [1], 0, 4)}, bytes(4)),
    "of a negative shape": header({"a": tensor("F32", [-1], 0, 4)}, bytes(4)),
    "of an absurd shape": header({"a": tensor("F32", [1 << 62, 1 << 62], 0, 4)}, bytes(4)),
    "of more than there is": header({"a": tensor("F32", [1 << 30], 0, 1 << 32)}, bytes(4)),
    "of two in one place": header({"a": tensor("F32", [1], 0, 4), "b": tensor("F32", [1], 0, 4)}, bytes(4)),
    "with a gap": header({"a": tensor("F32", [1], 4, 8)}, bytes(8)),
    "that is a tensor of nothing": header({"a": tensor("F32", [0, 1 << 40], 0, 0)}),
    "of strings": header({"a": "b"}),
    "of nothing": header({}),
    "of a name of many lines": header({"a\nb\x1b[31m" * 50: tensor("F32", [1], 0, 4)}, bytes(4)),
}


@pytest.mark.parametrize("what", HEADERS)
def test_headers(copied, what):
    path = copied("export")
    (path / WEIGHTS).write_bytes(HEADERS[what])
    refused(lambda: load_backbone(path), WEIGHTS)


def rewritten(file: Path, change) -> str:
    """Weights of which the largest is changed; returns its name."""
    weights = load_file(file)
    name = max(weights, key=lambda name: weights[name].numel())
    changed = change(weights, name)
    save_file(changed, file)
    return name


def with_value(number: float):
    def change(weights, name):
        weights[name].flatten()[7] = number
        return weights

    return change


VALUES = {
    "NaN": with_value(float("nan")),
    "infinite": with_value(float("-inf")),
    "int8": lambda weights, name: {**weights, name: weights[name].to(torch.int8)},
    "bool": lambda weights, name: {**weights, name: weights[name] > 0},
    "too large for float32": lambda weights, name: {**weights, name: weights[name].double() * 1e300},
    "complex": lambda weights, name: {**weights, name: weights[name].to(torch.complex64)},
    "half, infinite": lambda weights, name: {**weights, name: (weights[name] * 1e30).half()},
}


@pytest.mark.parametrize("what", VALUES)
def test_weights_that_say_nothing_are_refused_by_name(copied, what):
    path = copied("export")
    name = rewritten(path / WEIGHTS, VALUES[what])
    line = refused(lambda: load_backbone(path), name)
    assert WEIGHTS in line


def test_weights_of_other_floats_are_loaded(copied):
    path = copied("export")
    expected = load_backbone(path).backbone.state_dict()
    rewritten(path / WEIGHTS, lambda weights, name: {key: value.double() for key, value in weights.items()})
    loaded = load_backbone(path).backbone.state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in expected.items())


@pytest.mark.parametrize(
    "change",
    [
        lambda weights, name: {key: value for key, value in weights.items() if key != name},
        lambda weights, name: {**weights, "more": torch.zeros(3)},
        lambda weights, name: {**weights, "more": torch.zeros(40_000_000, dtype=torch.int8)},
        lambda weights, name: {**weights, name: weights[name].T.contiguous()},
        lambda weights, name: {**weights, name: weights[name][:0]},
        lambda weights, name: {f"{i}": torch.zeros(1) for i in range(20_000)},
    ],
    ids=["fewer", "more", "many more", "turned", "none", "thousands"],
)
def test_weights_of_another_network(copied, change):
    path = copied("export")
    rewritten(path / WEIGHTS, change)
    refused(lambda: load_backbone(path), WEIGHTS)


@pytest.mark.parametrize("what", [*UNREADABLE, "list"])
@pytest.mark.parametrize("file", ["head.safetensors", "outputs.json"])
def test_what_is_not_a_head(copied, file, what):
    path = copied("predictor")
    place(path / file, what)
    refused(lambda: load_predictor(path), file)


HEADS = [
    *[("head", value) for value in (None, 3, "os.system", ["linear"], "normalised_linear", ...)],
    *[("classes", value) for value in (None, 3, "ab", [], ["a"], ["a", 3], ["a", "a"], ["", "b"], [["a"], "b"])],
    ("classes", [str(i) for i in range(100_000)]),
]


@pytest.mark.parametrize(("key", "value"), HEADS)
def test_heads_that_cannot_be(copied, key, value):
    path = changed(copied("predictor"), "outputs.json", key, value=value)
    refused(lambda: load_predictor(path), str(path))


NUMBERS = {"targets": ["t", "u"], "mean": [0.0, 1.0], "std": [1.0, 1.0], "log": [False, True]}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("targets", value) for value in (None, ["t"], ["t", "t"], [1, 2], "tu", ...)],
        *[("mean", value) for value in (None, [float("nan"), 0.0], ["0", 1.0], [[0.0], 1.0], 3, [10**400, 1.0])],
        *[("std", [float("inf"), 1.0]), ("log", [0, 1]), ("log", [None, True]), ("log", ...)],
    ],
)
def test_numbers_that_cannot_be(copied, key, value):
    path = copied("predictor")
    (path / "outputs.json").write_text(json.dumps({"head": "linear", "quarter_turns": False, **NUMBERS}))
    assert load_predictor(path).outputs == Targets(("t", "u"), (0.0, 1.0), (1.0, 1.0), (False, True))
    changed(path, "outputs.json", key, value=value)
    refused(lambda: load_predictor(path), "outputs.json")


@pytest.mark.parametrize("what", ["NaN", "int8", "complex"])
def test_heads_that_say_nothing(copied, what):
    path = copied("predictor")
    name = rewritten(path / "head.safetensors", VALUES[what])
    refused(lambda: load_predictor(path), f"head.safetensors: {name}")


def test_a_head_of_nothing(copied):
    path = copied("predictor")
    data = {"weight": tensor("F32", [0, 1 << 40], 0, 0), "bias": tensor("F32", [2], 0, 8)}
    (path / "head.safetensors").write_bytes(header(data, bytes(8)))
    refused(lambda: load_predictor(path), "head.safetensors")
