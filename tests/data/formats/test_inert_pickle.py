"""Payloads are written opcode by opcode or by pickle itself; every one would make the file `canary` if it ran."""

import io
import pickle
import pickletools
import struct
import subprocess

import numpy as np
import pytest

from ssl_lens.data.formats.inert_pickle import PickledArray, read_pickle
from ssl_lens.data.formats.reader import read_images
from ssl_lens.data.formats.sample import UnusableImage

_FLOATS = np.random.default_rng(0).normal(size=(3, 4))


class _Calls:
    """Pickles to a call of a function."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


def _text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def _array(shape: bytes, kind: bytes, raw: bytes) -> bytes:
    """Opcodes of an array of a shape, type and raw data, themselves given as opcodes."""
    reconstruct = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR"
    dtype = b"cnumpy\ndtype\n" + _text(kind.decode()) + b"\x89\x88\x87R(K\x03" + _text("<") + b"NNNJ\xff\xff\xff\xffJ"
    return reconstruct + b"(K\x01" + shape + dtype + b"\xff\xff\xff\xffK\x00tb\x89" + raw + b"tb"


def _payloads(canary: str) -> dict[str, bytes]:
    touch, write = _text(f"touch {canary}"), _text(f"open({canary!r}, 'w')")
    python = _text(f"__import__('os').system('touch {canary}')")
    bomb = (
        b"]q\x00(" + _text("lol") + b"e" + b"".join(b"]q%c(" % i + b"h%c" % (i - 1) * 200 + b"e" for i in range(1, 60))
    )
    inner = pickle.dumps(_Calls(open, (canary, "w")))
    nested = np.array([_FLOATS, _Calls(open, (canary, "w"))], dtype=object)
    return {
        "os.system": b"cos\nsystem\n(" + touch + b"tR.",
        "posix.system": b"cposix\nsystem\n(" + touch + b"tR.",
        "subprocess": pickle.dumps(_Calls(subprocess.Popen, (["touch", canary],))),
        "builtins.eval": b"cbuiltins\neval\n(" + write + b"tR.",
        "builtins.exec": b"c__builtin__\nexec\n(" + write + b"tR.",
        "open": pickle.dumps(_Calls(open, (canary, "w"))),
        "copyreg": b"ccopyreg\n_reconstructor\n(cposix\nsystem\ncbuiltins\nobject\nNtR" + touch + b"b.",
        "stack global": b"\x80\x04\x8c\x02os\x8c\x06system\x93" + touch + b"\x85R.",
        "stack global without a string": b"\x80\x04" + bomb + b"h;\x8c\x06system\x93.",
        "dotted attribute": b"\x80\x04\x8c\x05numpy\x8c\x12ndarray.__reduce__\x93)R.",
        "inst": b"(" + touch + b"ios\nsystem\n.",
        "obj": b"(cos\nsystem\n" + touch + b"o.",
        "newobj": b"cos\nsystem\n" + touch + b"\x85\x81.",
        "newobj_ex": b"\x80\x04\x8c\x02os\x8c\x06system\x93" + touch + b"\x85}\x92.",
        "build with __setstate__": b"cnumpy\nndarray\n}" + _text("__setstate__")
        + b"cos\nsystem\nsb" + touch + b"b.",
        "build of an array of state": b"cnumpy\nndarray\n(" + touch + b"tb.",
        "persid": b"Pos.system\n.",
        "binpersid": touch + b"Q.",
        "ext1": b"\x82\x01.",
        "ext2": b"\x83\x01\x01.",
        "ext4": b"\x84\x01\x01\x01\x01.",
        "import with side effects": b"cantigravity\nfly\n)R.",
        "numpy's own loader": b"cnumpy\nload\n(" + _text(canary) + b"tR.",
        "numpy f2py": b"cnumpy.testing._private.utils\nrunstring\n(" + python + b"}tR.",
        "numpy ndarray called": b"cnumpy\nndarray\n(\x8a\x05\x00\x00\x00\x00\x10\x85tR.",
        "reconstruct of an own type": b"cnumpy.core.multiarray\n_reconstruct\n(cos\nsystem\nK\x00\x85C\x01btR.",
        "scalar of objects": pickle.dumps(np.float64(1)).replace(b"f8", b"O8"),
        "codecs of another encoding": b"c_codecs\nencode\n(" + touch + _text("rot13") + b"tR.",
        "bytes of a nested pickle called": b"cpickle\nloads\n(B" + struct.pack("<I", len(inner)) + inner + b"tR.",
        "pickle within an object array": pickle.dumps(nested),
        "dict": b"}" + touch + b"K\x01s.",
        "set": b"\x80\x04\x8f.",
        "buffer": b"\x80\x05\x97.",
        "exponential lists": bomb + b"0cos\nsystem\n(" + touch + b"tR.",
        "encoded over and over": _text("x" * 5000) + b"q\x010" + b"c_codecs\nencode\nq\x020(" + b"h\x02(h\x01"
        + _text("latin1") + b"q\x03tR" + b"h\x02(h\x01h\x03tR" * 50 + b"l.",
        "objects over and over": b"](" + b"K\x01" * 500 + b"eq\x01("
        + _array(b"M\xf4\x01\x85", b"O8", b"h\x01") * 50 + b"l.",
        "absurd declared array": _array(b"\x8a\x05\x00\x00\x00\x00\x10\x85", b"f8", b"C\x08" + b"\0" * 8) + b".",
        "absurd declared axis": _array(b"\x8a\x09" + b"\xff" * 8 + b"\x00\x85", b"f8", b"C\x08" + b"\0" * 8) + b".",
        "negative axis": _array(b"J\xff\xff\xff\xff\x85", b"f8", b"C\x08" + b"\0" * 8) + b".",
        "absurd declared string": b"\x8e" + b"\xff" * 7 + b"\x7f" + b"x.",
        "pointers as objects": _array(b"K\x01\x85", b"O8", b"C\x08" + b"\x41" * 8) + b".",
        "records": b"cnumpy\ndtype\n(" + _text("f8,f8") + b"\x89\x88tR.",
        "state of a type with fields": b"cnumpy\ndtype\n(" + _text("f8") + b"\x89\x88tR(K\x03" + _text("|")
        + b"N(" + _text("a") + b"tNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb.",
        "state of a number": b"K\x01(tb.",
        "append to a number": b"K\x01K\x02a.",
        "long decimal": b"L" + b"9" * 100_000 + b"L\n.",
        "long float": b"F" + b"x" * 100_000 + b"\n.",
        "no end": b"K\x01",
        "empty stack": b"0.",
        "unknown memo": b"h\x07.",
    }  # fmt: skip


_KINDS = list(_payloads("canary"))


@pytest.mark.parametrize("kind", _KINDS)
def test_payloads_are_refused_in_one_line_and_never_run(tmp_path, kind, monkeypatch):
    canary = tmp_path / "canary"
    payload = _payloads(str(canary))[kind]

    def forbidden(*_, **__):
        raise AssertionError("Python's own unpickler was called")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, forbidden)
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
    (tmp_path / "a.npy").write_bytes(file.getvalue() + payload)
    for read in (lambda: read_pickle(payload), lambda: list(read_images(tmp_path / "a.npy"))):
        with pytest.raises(UnusableImage) as error:
            read()
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 200
    assert not canary.exists()


@pytest.mark.parametrize("kind", ["os.system", "builtins.eval", "open", "stack global", "inst", "exponential lists"])
def test_the_canary_sings_where_python_unpickles(tmp_path, kind):
    """The payloads are live: Python's own unpickler runs them."""
    canary = tmp_path / "canary"
    result = pickle.loads(_payloads(str(canary))[kind])
    if kind in ("open", "builtins.eval"):
        result.close()
    assert canary.exists()


def test_numbers_strings_tuples_and_lists():
    value = [1, -2, 2**70, 1.5, True, False, None, "a\nµ", b"\x00\xff", (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [[]]]
    for protocol in range(5):
        assert read_pickle(pickle.dumps(value[:8] + value[9:], protocol)) == value[:8] + value[9:]
    for protocol in (2, 3, 4):
        assert read_pickle(pickle.dumps(value, protocol)) == value
    shared = ["x"]
    read = read_pickle(pickle.dumps([shared, shared]))
    assert read[0] is read[1]


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("dtype", ["?", "u1", "<i2", ">i4", "i8", "f2", "<f4", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_numeric_arrays_of_every_protocol(protocol, dtype, order):
    array = np.array(_FLOATS * 10, dtype=dtype, order=order)
    read = read_pickle(pickle.dumps(array, protocol))
    assert isinstance(read, PickledArray)
    assert read.shape == (3, 4)
    assert read.values.dtype == array.dtype
    np.testing.assert_array_equal(read.values, array)


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_both_names_of_numpy_and_scalars(module):
    old = pickle.dumps((np.float64(1e-23), np.int16(7), np.bool_(True), _FLOATS), 2)
    data = old.replace(b"numpy._core.multiarray", module)
    *scalars, array = read_pickle(data)
    assert scalars == [1e-23, 7, True]
    np.testing.assert_array_equal(array.values, _FLOATS)


def test_a_pickle_of_python_2():
    """Strings are bytes there: what protocol 2 wrote in Python 2."""
    raw = np.array([1.5, 2.5]).tobytes()
    data = b"\x80\x02" + _array(b"K\x02\x85", b"f8", b"U" + bytes([len(raw)]) + raw) + b"."
    assert read_pickle(data).values.tolist() == [1.5, 2.5]


def test_object_arrays_in_both_orders():
    array = np.empty((2, 3), dtype=object)
    array[:] = [[1, 2, 3], [4, 5, 6]]
    for ordered in (array, np.asfortranarray(array)):
        read = read_pickle(pickle.dumps(ordered, 4))
        assert (read.shape, read.values) == ((2, 3), [1, 2, 3, 4, 5, 6])


def test_no_opcode_is_forgotten():
    """Whatever opcode pickletools knows, alone, is read or refused, and only these are read."""
    refused = set()
    for opcode in pickletools.opcodes:
        try:
            read_pickle(b"(" * 3 + opcode.code.encode("latin-1") + b"\x00" * 16 + b"\n\n.")
        except UnusableImage as error:
            if f"opcode {opcode.name} refused" in str(error):
                refused.add(opcode.name)
    calls = {"INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID"}
    assert refused >= calls - {"INST", "PERSID"}
    assert refused >= {"EMPTY_DICT", "EMPTY_SET", "ADDITEMS", "FROZENSET", "NEXT_BUFFER", "READONLY_BUFFER", "SETITEMS"}
