"""Files of weights from strangers, as `model.weights` names them."""

import io
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from hostile import UNREADABLE, place, refused
from safetensors.torch import save_file

from ssl_lens.backbones.resnet import ResNet, ResNetOptions
from ssl_lens.backbones.weights import load_weights, read_weights


@pytest.fixture(scope="module")
def network() -> ResNet:
    return ResNet(1, ResNetOptions(width=2, depths=(1, 1)))


@pytest.mark.parametrize("what", [*UNREADABLE, "password file", "list", "deep", "kernel's messages"])
@pytest.mark.parametrize("name", ["a.safetensors", "a.pth", "a.pt"])
def test_what_is_not_weights(tmp_path: Path, name: str, what: str) -> None:
    place(tmp_path / name, what)
    refused(lambda: read_weights(tmp_path / name), name)


def test_a_name_that_no_file_has() -> None:
    refused(lambda: read_weights("a\0.pth"), "does not exist")


def changed(network: ResNet, change: object) -> dict[str, torch.Tensor]:
    state = dict(network.state_dict())
    state["stem.0.weight"] = change(state["stem.0.weight"])  # type: ignore[operator]
    return state


SAID_NOTHING = {
    "NaN": lambda weight: weight * float("nan"),
    "one infinite number": lambda weight: torch.where(weight == weight.max(), torch.inf, weight),
    "int8": lambda weight: weight.to(torch.int8),
    "complex": lambda weight: weight.to(torch.complex64),
    "too large for float32": lambda weight: weight.double() * 1e300,
    "bool": lambda weight: weight > 0,
}


@pytest.mark.parametrize("what", SAID_NOTHING)
@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
def test_weights_that_say_nothing_are_refused_by_name(tmp_path: Path, network: ResNet, name: str, what: str) -> None:
    path = tmp_path / name
    state = changed(network, SAID_NOTHING[what])
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    refused(lambda: load_weights(network, read_weights(path), path), f"{name}: stem.0.weight")


def test_weights_in_half_precision_are_loaded(network: ResNet) -> None:
    state = changed(network, lambda weight: weight.to(torch.bfloat16))
    load_weights(network, state, "half")
    assert torch.equal(network.state_dict()["stem.0.weight"], state["stem.0.weight"].float())


NOT_STORED = {
    "repeated": lambda: torch.zeros(1).expand(10**9),
    "sparse": lambda: torch.sparse_coo_tensor(torch.zeros(1, 1, dtype=torch.long), torch.ones(1), (10**9,)),
    "without data": lambda: torch.zeros(10**9, device="meta"),
}


@pytest.mark.filterwarnings("ignore")  # torch's, of sparse tensors while they are saved
@pytest.mark.parametrize("what", NOT_STORED)
def test_tensors_of_fewer_numbers_than_they_show(tmp_path: Path, what: str) -> None:
    torch.save({"weight": NOT_STORED[what]()}, tmp_path / "a.pth")
    refused(lambda: read_weights(tmp_path / "a.pth"), "a.pth")


def test_packed_parts_are_not_unpacked(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(100_000_000, dtype=torch.int8)}, tmp_path / "whole.pth")
    with zipfile.ZipFile(tmp_path / "whole.pth") as whole, zipfile.ZipFile(tmp_path / "a.pth", "w") as packed:
        for member in whole.infolist():
            packed.writestr(member.filename, whole.read(member), zipfile.ZIP_DEFLATED)
    assert (tmp_path / "a.pth").stat().st_size < 1_000_000
    line = refused(lambda: read_weights(tmp_path / "a.pth"), "a.pth")
    assert "its parts are compressed, or more than the file holds" in line


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[int]]:
        return bytearray, (1 << 40,)


@pytest.mark.parametrize("what", ["a call", "a terabyte", "lists of lists", "another protocol"])
def test_pickles_that_want_more(tmp_path: Path, what: str) -> None:
    match what:
        case "a call":
            data = b"cos\nsystem\n(S'touch escaped'\ntR."
        case "a terabyte":
            data = pickle.dumps({"weight": Bomb()}, protocol=2)
        case "lists of lists":
            data = b"\x80\x02]q\x00" + b"".join(b"]q%c(h%ch%ce" % (i + 1, i, i) for i in range(60)) + b"."
        case _:
            data = pickle.dumps({"weight": 3}, protocol=5)
    (tmp_path / "a.pth").write_bytes(data)
    refused(lambda: read_weights(tmp_path / "a.pth"), "a.pth")
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in (("a/data.pkl", data), ("a/version", b"3\n"), ("a/byteorder", b"little")):
            archive.writestr(name, content)
    (tmp_path / "b.pth").write_bytes(file.getvalue())
    refused(lambda: read_weights(tmp_path / "b.pth"), "b.pth")
