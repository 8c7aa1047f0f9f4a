"""Saving and loading, against files that PyTorch wrote (tools/record_serialization.py)."""

from __future__ import annotations

import collections
import copy
import io
import os
import pickle
import random
import stat
import struct
import subprocess
import sys
import threading
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from flambeau.core import dtype as dtypes
from flambeau.core.device import CPU, device
from flambeau.core.layout import Layout, Size
from flambeau.core.memory_format import strided
from flambeau.engine.storage import Storage
from flambeau.nn.parameter import Parameter
from flambeau.serialization import (
    add_safe_globals,
    clear_safe_globals,
    get_safe_globals,
    load,
    safe_globals,
    save,
    set_crc32_options,
)
from flambeau.serialization.archive import ArchiveReader, ArchiveWriter
from flambeau.tensor import Tensor

REFERENCES = Path(__file__).parent / "references" / "serialization"
REFUSALS = (RuntimeError, pickle.UnpicklingError, EOFError)


def make(array, dtype=None):
    """A tensor with these values (bfloat16 from its bits)."""
    array = np.ascontiguousarray(array).reshape(np.shape(array))
    storage = Storage(array.nbytes)
    storage.memory()[:] = array.reshape(-1).view(np.uint8).data
    return Tensor._from_storage(
        storage, Layout.of(array.shape, dtype or dtypes.FROM_NUMPY[array.dtype])
    )


def view(tensor, shape, strides, offset=0):
    layout = Layout.of(shape, tensor.dtype, CPU, strides, offset)
    return Tensor._from_storage(tensor._storage, layout)


def values(tensor):
    """A copy of the tensor's values."""
    layout = tensor._layout
    if layout.numel == 0:
        return np.zeros(layout.shape, layout.dtype.numpy)
    flat = np.frombuffer(tensor._storage.memory(), layout.dtype.numpy)[layout.offset :]
    strides = [stride * layout.dtype.itemsize for stride in layout.strides]
    return np.lib.stride_tricks.as_strided(flat, layout.shape, strides).copy()


def saved(obj, **options):
    buffer = io.BytesIO()
    save(obj, buffer, **options)
    return buffer.getvalue()


def loaded(data, **options):
    return load(io.BytesIO(data), **options)


def archive_of(pickled, records=None):
    """An archive with this pickle and these storages, unchecked."""
    buffer = io.BytesIO()
    writer = ArchiveWriter(buffer, "archive")
    writer.write_record("data.pkl", pickled)
    for name, data in (records or {}).items():
        writer.write_record(name, data)
    writer.finish()
    return buffer.getvalue()


# The pickle of one float32 tensor in storage 0; %s are the numel, then what follows the storage.
TENSOR_PICKLE = (
    b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpu%stQ%s\x89ccollections\nOrderedDict\n)RtR."
)


def pickled_int(value):
    return pickle.dumps(value, 2)[2:-1]


def tensor_file(numel, offset, size, stride, record):
    description = b"".join(pickle.dumps(part, 2)[2:-1] for part in (offset, size, stride))
    return archive_of(TENSOR_PICKLE % (pickled_int(numel), description), {"data/0": record})


# --------------------------------------------------------------------------- PyTorch's files


@pytest.mark.parametrize("weights_only", [True, False])
@pytest.mark.parametrize("name", ["dtypes.pth", "no_checksums.pth"])
def test_reads_every_dtype(name, weights_only):
    tensors = load(REFERENCES / name, weights_only=weights_only)
    assert list(tensors) == list(dtypes.BY_NAME)
    for dtype_name, tensor in tensors.items():
        dtype = dtypes.BY_NAME[dtype_name]
        assert tensor.dtype is dtype and tensor.shape == (5,)
        if dtype is dtypes.bfloat16:
            expected = (np.arange(5, dtype=np.float32).view(np.uint32) >> 16).astype(np.uint16)
        else:
            expected = np.arange(5).astype(dtype.numpy)
        np.testing.assert_array_equal(values(tensor), expected)


def check_views(tensors):
    base = np.arange(24, dtype=np.float32)
    matrix = base.reshape(4, 6)
    expected = {
        "base": base, "matrix": matrix, "transposed": matrix.T, "columns": matrix[1:, ::2],
        "expanded": np.full(5, 3, np.float32), "scalar": np.float32(2.5),
        "empty": np.zeros((0, 3), np.float32),
    }  # fmt: skip
    for name, tensor in tensors.items():
        assert tensor.shape == expected[name].shape
        np.testing.assert_array_equal(values(tensor), expected[name])
    shared = ["base", "matrix", "transposed", "columns", "expanded"]
    assert len({id(tensors[name]._storage) for name in shared}) == 1
    assert tensors["columns"].stride() == (6, 2) and tensors["columns"].storage_offset() == 6
    assert tensors["expanded"].stride() == (0,)


@pytest.mark.parametrize("weights_only", [True, False])
@pytest.mark.parametrize("name", ["views.pth", "legacy.pth"])
def test_views_share_their_storage(name, weights_only):
    check_views(load(REFERENCES / name, weights_only=weights_only))


def check_data(data):
    assert data["none"] is None and data["flags"] == [True, False]
    assert data["numbers"] == (1, -2, 300, 70000, -(2**40), 2**80, 0.5)
    assert data["text"] == "naïve" and data["nested"] == [[], {}, ()]
    assert data["bytes"] == b"\x00\xff" and data["bytearray"] == bytearray(b"ab")
    assert data["set"] == {1, 2} and data["complex"] == 1 + 2j
    assert data["counter"] == collections.Counter("aab")
    assert data["dtype"] is dtypes.float16
    assert data["size"] == (2, 3) and type(data["size"]) is Size
    assert data["layout"] is strided
    assert data["devices"] == [device("cpu"), device("cuda", 1)]


@pytest.mark.parametrize("weights_only", [True, False])
@pytest.mark.parametrize("name", ["data.pth", "data_protocol_4.pth"])
def test_reads_plain_data(name, weights_only):
    check_data(load(REFERENCES / name, weights_only=weights_only))


def check_parameters(tensors):
    assert [type(tensor) for tensor in tensors.values()] == [Parameter] * 3 + [Tensor] * 3
    assert [tensor.requires_grad for tensor in tensors.values()] == [
        True, False, True, False, True, False,
    ]  # fmt: skip
    assert tensors["marked"].group == "slow" and tensors["tagged"].tag == [1, 2]
    assert tensors["meta"].device.type == "meta" and tensors["meta"].shape == (2, 3)
    np.testing.assert_array_equal(values(tensors["plain"]), [0, 1, 2])


@pytest.mark.parametrize("weights_only", [True, False])
def test_reads_parameters_and_attributes(weights_only):
    check_parameters(load(REFERENCES / "parameters.pth", weights_only=weights_only))


def test_reads_a_training_checkpoint():
    checkpoint = load(REFERENCES / "training.pth")
    model = checkpoint["model"]
    assert type(model) is collections.OrderedDict and model._metadata["norm"] == {"version": 2}
    np.testing.assert_array_equal(values(model["linear.weight"]), np.arange(6).reshape(2, 3) - 0.5)
    assert model["norm.num_batches_tracked"].dtype is dtypes.int64
    optimizer = checkpoint["optimizer"]
    assert optimizer["param_groups"][0]["lr"] == 0.5
    np.testing.assert_array_equal(values(optimizer["state"][0]["momentum_buffer"]), 1)


# --------------------------------------------------------------------------- the same bytes


def records_of(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        contents = {name: archive.read(name) for name in archive.namelist()}
    return {n: c for n, c in contents.items() if not n.endswith("serialization_id")}


RESAVED = ["dtypes.pth", "views.pth", "data.pth", "parameters.pth", "training.pth"]


@pytest.mark.parametrize("name", RESAVED)
def test_writes_the_bytes_that_pytorch_writes(name, tmp_path):
    original = (REFERENCES / name).read_bytes()
    save(load(REFERENCES / name), tmp_path / name)
    ours = (tmp_path / name).read_bytes()
    if name == "data.pth":  # the order of a set's elements may differ
        assert records_of(ours).keys() == records_of(original).keys()
        return
    assert records_of(ours) == records_of(original)
    # All but the forty digits of the serialization id, and its checksum in two places.
    differing = sum(a != b for a, b in zip(ours, original))
    assert len(ours) == len(original) and differing <= 48


def test_writes_modules_under_pytorchs_names():
    nn = pytest.importorskip("flambeau.nn")
    conv = nn.Conv2d(1, 1, 3)
    names = {argument for code, argument, _ in _opcodes(saved(conv)) if code.name == "GLOBAL"}
    assert "torch.nn.modules.conv Conv2d" in names
    assert not any(name.startswith("flambeau") for name in names)


def _opcodes(data):
    import pickletools

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return list(pickletools.genops(archive.read("archive/data.pkl")))


def test_reads_a_whole_module_and_writes_it_back(tmp_path):
    nn = pytest.importorskip("flambeau.nn")
    if not hasattr(nn, "BatchNorm1d"):
        pytest.skip("no BatchNorm1d yet")
    module = load(REFERENCES / "module.pth", weights_only=False)
    assert type(module) is nn.Sequential and type(module.norm) is nn.BatchNorm1d
    save(module, tmp_path / "module.pth")
    again = load(tmp_path / "module.pth", weights_only=False)
    for name, tensor in module.state_dict().items():
        np.testing.assert_array_equal(values(tensor), values(again.state_dict()[name]))


# --------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_round_trip(protocol, zipped):
    base = make(np.arange(24, dtype=np.float32))
    tensors = {"base": base, "part": view(base, (2, 3), (6, 2), 5), "other": make(np.int64(7))}
    data = saved(
        {"tensors": tensors, "data": [1, None, ("a", {2.5})]},
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=zipped,
    )
    for weights_only in (True, False):
        result = loaded(data, weights_only=weights_only)
        assert result["data"] == [1, None, ("a", {2.5})]
        again = result["tensors"]
        assert again["base"]._storage is again["part"]._storage
        np.testing.assert_array_equal(values(again["part"]), values(tensors["part"]))
        np.testing.assert_array_equal(values(again["other"]), 7)


def test_an_object_saved_twice_is_loaded_once():
    tensor = make(np.ones(3))
    first, second = loaded(saved([tensor, tensor]))
    assert first is second


@pytest.mark.parametrize("protocol", range(2, 6))
def test_plain_pickle_and_copy(protocol):
    tensor = view(make(np.arange(6)), (2, 2), (3, 1), 1)
    again = pickle.loads(pickle.dumps(tensor, protocol))
    np.testing.assert_array_equal(values(again), values(tensor))
    assert again._storage is not tensor._storage and again.stride() == (3, 1)
    assert copy.copy(tensor)._storage is tensor._storage
    parameter = pickle.loads(pickle.dumps(Parameter(make(np.ones(2))), protocol))
    assert type(parameter) is Parameter and parameter.requires_grad


def test_storages_of_two_types_are_refused_as_in_pytorch():
    tensor = make(np.ones(4, np.float32))
    other = Tensor._from_storage(tensor._storage, Layout.of((4,), dtypes.int32))
    with pytest.raises(RuntimeError, match="view the same data as different types"):
        saved([tensor, other])


def test_names_of_ours_stay_ours_in_classes_of_the_user():
    assert loaded(saved(UserState(3)), weights_only=False).number == 3


class UserState:
    def __init__(self, number):
        self.number = number


class Slotted:
    __slots__ = ("left", "right")

    def __init__(self, left, right):
        self.left, self.right = left, right


# --------------------------------------------------------------------------- map_location, mmap


def relocated(location):
    """A file whose one storage lies at `location`."""
    data = saved(make(np.arange(3, dtype=np.float32)))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        pickled = archive.read("archive/data.pkl")
    text = struct.pack("<I", len(location)) + location.encode()
    pickled = pickled.replace(b"\x03\x00\x00\x00cpu", text)
    return archive_of(pickled, {"data/0": np.arange(3, dtype=np.float32).tobytes()})


def test_a_gpu_file_needs_a_map_location():
    data = relocated("cuda:0")
    with pytest.raises(RuntimeError, match=r"map_location=torch.device\('cpu'\)"):
        loaded(data)
    places = ["cpu", device("cpu"), {"cuda:0": "cpu"}, lambda storage, location: storage]
    for place in places:
        tensor = loaded(data, map_location=place)
        assert tensor.device is CPU
        np.testing.assert_array_equal(values(tensor), [0, 1, 2])


def test_unknown_locations_are_named():
    with pytest.raises(RuntimeError, match="tagged with elsewhere"):
        loaded(relocated("elsewhere"))


def test_map_location_function_sees_storage_and_location():
    seen = []
    loaded(relocated("cuda:1"), map_location=lambda storage, place: seen.append(place) or storage)
    assert seen == ["cuda:1"]


def test_meta_reads_no_bytes():
    tensor = load(REFERENCES / "views.pth", map_location="meta")["matrix"]
    assert tensor.device.type == "meta" and tensor.shape == (4, 6)


def test_mapped_storages_are_private(tmp_path):
    path = tmp_path / "mapped.pth"
    save({"x": make(np.arange(1000, dtype=np.float32)), "empty": make(np.zeros(0))}, path)
    before = path.read_bytes()
    tensor = load(path, mmap=True)["x"]
    np.testing.assert_array_equal(values(tensor), np.arange(1000))
    tensor._storage.memory()[:4] = np.float32(5).tobytes()
    assert values(tensor)[0] == 5 and path.read_bytes() == before


def test_mmap_needs_a_path_and_an_archive():
    with pytest.raises(ValueError, match="f must be a file path"):
        loaded(saved(1), mmap=True)
    with pytest.raises(RuntimeError, match="mmap can only be used with files saved with"):
        load(REFERENCES / "legacy.pth", mmap=True)


def test_big_endian_files_are_turned():
    data = saved(make(np.arange(3, dtype=np.float32)))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        pickled = archive.read("archive/data.pkl")
    bytes_of = np.arange(3, dtype=">f4").tobytes()
    tensor = loaded(archive_of(pickled, {"byteorder": b"big", "data/0": bytes_of}))
    np.testing.assert_array_equal(values(tensor), [0, 1, 2])


# --------------------------------------------------------------------------- restricted loading


class Command:
    """Pickles as a call of `os.system`."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def pickle_archive(obj, protocol=2):
    return archive_of(pickle.dumps(obj, protocol))


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_call_hidden_in_a_file_is_refused_and_not_made(tmp_path, protocol):
    target = tmp_path / "touched"
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed") as error:
        loaded(pickle_archive({"x": Command(target)}, protocol))
    assert "GLOBAL posix.system was not an allowed global by default" in str(error.value)
    assert "add_safe_globals([posix.system])" in str(error.value)
    with pytest.raises(pickle.UnpicklingError, match="posix.system"):
        loaded(pickle.dumps(Command(target)))
    assert not target.exists()


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02cbuiltins\neval\nX\x03\x00\x00\x001+1\x85R.",
        b"\x80\x02c__builtin__\ngetattr\n.",
        b"\x80\x02ctorch.serialization\nload\n.",
        b"\x80\x02ctorch\nTensor\nK\x05\x85R.",  # would allocate
        b"\x80\x02ctorch\nTensor\n)\x81.",
        b"\x80\x02cbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x00\x40\x85R.",  # 1 TB
        b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(ccollections\nOrderedDict\n"
        b"ctorch\nTensor\n)}tR.",
        b"\x80\x02ctorch\nSize\n}X\x01\x00\x00\x00aK\x01sb.",  # BUILD on a class
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x01\x00\x00\x00aK\x01sb.",
        b"\x80\x02]X\x01\x00\x00\x00aK\x01s.",  # SETITEM on a list
        b"\x80\x02X\x01\x00\x00\x00aQ.",  # persistent id that is no storage
        b"\x80\x02(X\x07\x00\x00\x00storagecos\nsystem\ntQ.",
        b"\x80\x02h\x05.",  # a memo entry that was never made
        b"\x80\x02R.",
        b"\x80\x02}" + b")" + b"\x85" * 200_000 + b"K\x01s.",  # a key too deep to hash
        b"\x80\x02)" + b"2\x86" * 80 + b"}.",  # DUP is not for data
        b"\x80\x02" + b"(" * 1000,
        b"",
    ],
)
def test_hostile_pickles_are_refused(pickled):
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        loaded(archive_of(pickled))


def test_safe_globals():
    data = saved({"a": UserState(1), "b": Slotted(2, 3)})
    with pytest.raises(pickle.UnpicklingError, match="Unsupported global: GLOBAL .*UserState"):
        loaded(data)
    with safe_globals([UserState, Slotted]):
        assert get_safe_globals() == [UserState, Slotted]
        result = loaded(data)
        assert result["a"].number == 1 and result["b"].right == 3
    assert get_safe_globals() == []
    add_safe_globals([UserState, (Slotted, f"{__name__}.Slotted")])
    try:
        assert loaded(data)["b"].left == 2
    finally:
        clear_safe_globals()
    with pytest.raises(pickle.UnpicklingError):
        loaded(data)


def test_weights_only_false_runs_what_the_file_says(tmp_path):
    target = tmp_path / "touched"
    loaded(pickle_archive(Command(target)), weights_only=False)
    assert target.exists()


def test_weights_only_excludes_a_pickle_module():
    with pytest.raises(RuntimeError, match="Can not safely load weights"):
        loaded(saved(1), pickle_module=pickle, weights_only=True)
    assert loaded(saved(1), pickle_module=pickle) == 1


# --------------------------------------------------------------------------- damaged files


@pytest.mark.parametrize(
    "numel, offset, size, stride",
    [
        (4, 0, (5,), (1,)),
        (4, 1, (4,), (1,)),
        (4, 0, (2, 2), (3, 1)),
        (4, 3, (2,), (-1,)),
        (4, -1, (2,), (1,)),
        (4, 0, (-2,), (1,)),
        (4, 0, (2**62, 2**62), (0, 0)),
        (4, 2**70, (1,), (1,)),
        (4, 0, (2, 2), (1,)),
        (4, 0, 4, 1),
        (4, 0, (2.0,), (1,)),
        (4, True, (2,), (1,)),
    ],
)
def test_tensors_must_lie_in_their_storage(numel, offset, size, stride):
    with pytest.raises(RuntimeError):
        loaded(tensor_file(numel, offset, size, stride, bytes(4 * numel)))


def test_tensor_at_the_end_of_its_storage_is_fine():
    tensor = loaded(tensor_file(4, 1, (3,), (1,), np.arange(4, dtype=np.float32).tobytes()))
    np.testing.assert_array_equal(values(tensor), [1, 2, 3])
    assert loaded(tensor_file(4, 4, (0, 2), (2, 1), bytes(16))).shape == (0, 2)


@pytest.mark.parametrize("numel", [0, 3, 5, 2**40, 2**62])
def test_storages_must_have_the_announced_size(numel):
    with pytest.raises(RuntimeError, match="instead of"):
        loaded(tensor_file(numel, 0, (0,), (1,), bytes(16)))


def test_missing_storages_are_named():
    pickled = TENSOR_PICKLE % (b"K\x04", b"K\x00K\x04\x85K\x01\x85")
    with pytest.raises(RuntimeError, match="failed locating file data/0"):
        loaded(archive_of(pickled))


@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_files_are_refused(zipped):
    data = saved({"x": make(np.ones(3))}, _use_new_zipfile_serialization=zipped)
    for size in range(len(data)):
        with pytest.raises(REFUSALS):
            loaded(data[:size])


@pytest.mark.parametrize("zipped", [True, False])
def test_flipped_bytes_never_do_more_than_raise(zipped):
    tensor = make(np.ones(3))
    state = collections.OrderedDict(x=tensor, y=Parameter(tensor), z=[1, {2: (3, "a")}, b"b"])
    data = saved(state, _use_new_zipfile_serialization=zipped)
    source = random.Random(3)
    directory = data.find(b"PK\x01\x02")
    for _ in range(1500):
        damaged = bytearray(data)
        if zipped and source.random() < 0.7:  # no checksum for the pickle: it is parsed
            damaged[directory + 16 : directory + 20] = bytes(4)
        for _ in range(source.choice([1, 1, 2, 5])):
            damaged[source.randrange(len(damaged))] = source.randrange(256)
        try:
            result = loaded(bytes(damaged))
        except REFUSALS:
            continue
        for found in result.values() if isinstance(result, dict) else ():
            if isinstance(found, Tensor) and found.numel() < 1000:
                values(found)


def test_a_changed_storage_is_noticed():
    data = bytearray(saved(make(np.ones(1000))))
    data[data.index(np.ones(100).tobytes()) + 8] ^= 1
    with pytest.raises(RuntimeError, match="checksum of archive/data/0"):
        loaded(bytes(data))


def test_text_is_no_archive():
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        loaded(b"hello, world\n")
    with pytest.raises(EOFError, match="Ran out of input"):
        loaded(b"")


def zipped_by_others(data, method):
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w", method) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return buffer.getvalue()


def test_reads_archives_that_were_zipped_again():
    data = saved({"x": make(np.arange(10000))})
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        tensor = loaded(zipped_by_others(data, method))["x"]
        np.testing.assert_array_equal(values(tensor), np.arange(10000))


def test_bombs_are_refused_before_they_grow():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("a/data.pkl", TENSOR_PICKLE % (pickled_int(1 << 25), b"K\x00))"))
        with archive.open("a/data/0", "w") as record:
            for _ in range(128):
                record.write(bytes(1 << 20))
    with pytest.raises(RuntimeError, match="compressed records would take"):
        loaded(buffer.getvalue())


def test_a_record_that_inflates_past_its_size_is_refused():
    packed = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = packed.compress(bytes(100_000)) + packed.flush()
    data = zipped_by_others(saved(list(range(1000))), zipfile.ZIP_DEFLATED)
    archive = ArchiveReader(io.BytesIO(data))
    record = archive.record("data.pkl")
    begin = archive.data_offset(record)
    assert len(body) < record.stored_size
    damaged = bytearray(data)
    damaged[begin : begin + len(body)] = body
    with pytest.raises((RuntimeError, zlib.error)):
        loaded(bytes(damaged))


def test_overlapping_records_are_refused():
    data = bytearray(saved([make(np.ones(1000)), make(np.ones(1000))]))
    first = data.rfind(b"archive/data/0") - 46
    second = data.rfind(b"archive/data/1") - 46
    data[second + 42 : second + 46] = data[first + 42 : first + 46]
    size = struct.pack("<I", 16000)
    for entry in (first, second):
        data[entry + 20 : entry + 28] = size + size
    with pytest.raises(RuntimeError, match="overlap"):
        loaded(bytes(data))


# --------------------------------------------------------------------------- writing files


def test_a_failed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "model.pth"
    save({"x": 1}, path)
    with pytest.raises((pickle.PicklingError, AttributeError)):
        save({"x": lambda: None}, path)
    assert load(path) == {"x": 1}
    assert os.listdir(tmp_path) == ["model.pth"]


def test_a_killed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "model.pth"
    save({"x": 1}, path)
    program = (
        "import os\n"
        "from flambeau.serialization import saving, save\n"
        "class Killed(saving.ArchiveWriter):\n"
        "    def finish(self):\n"
        "        os._exit(9)\n"
        "saving.ArchiveWriter = Killed\n"
        f"save({{'x': 2}}, {os.fspath(path)!r})\n"
    )
    root = Path(__file__).parents[1]
    result = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True)
    assert result.returncode == 9, result.stderr.decode()
    assert load(path) == {"x": 1}


def test_permissions_and_links_survive(tmp_path):
    path = tmp_path / "model.pth"
    save(1, path)
    path.chmod(0o640)
    link = tmp_path / "latest.pth"
    link.symlink_to(path)
    save(2, link)
    assert link.is_symlink() and load(path) == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_new_files_get_the_usual_permissions(tmp_path):
    save(1, tmp_path / "ours.pth")
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "ours.pth").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_concurrent_saves_leave_one_whole_file(tmp_path):
    path = tmp_path / "model.pth"
    tensors = [make(np.full(5000, n)) for n in range(4)]
    threads = [threading.Thread(target=save, args=(tensor, path)) for tensor in tensors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(values(load(path)).tolist())) == 1
    assert os.listdir(tmp_path) == ["model.pth"]


def test_the_folder_inside_is_named_after_the_file(tmp_path):
    for name, folder in {"a.b.pth": "a.b", "noext": "noext", "é.pth": "archive"}.items():
        save(1, tmp_path / name)
        with zipfile.ZipFile(tmp_path / name) as archive:
            assert archive.namelist()[0] == f"{folder}/data.pkl"
        assert load(tmp_path / name) == 1


def test_storages_begin_at_multiples_of_64():
    data = saved([make(np.ones(n, np.int8)) for n in (1, 2, 3)])
    archive = ArchiveReader(io.BytesIO(data))
    assert [archive.data_offset(record) % 64 for record in archive.records.values()] == [0] * 9


def test_odd_targets(tmp_path):
    with pytest.raises(AttributeError, match="file-like object with a 'write' attribute"):
        save(1, 3)
    with pytest.raises(RuntimeError, match="Parent directory .* does not exist"):
        save(1, tmp_path / "missing" / "model.pth")
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "missing.pth")
    with pytest.raises(AttributeError, match="from a file that is seekable"):
        load(object())


class Trickle(io.RawIOBase):
    """A file that reads and writes a few bytes at a time."""

    def __init__(self, data=b""):
        self._buffer = io.BytesIO(data)

    def readable(self):
        return True

    def writable(self):
        return True

    def seekable(self):
        return True

    def seek(self, *position):
        return self._buffer.seek(*position)

    def readinto(self, target):
        return self._buffer.readinto(memoryview(target)[:7])

    def write(self, data):
        return self._buffer.write(bytes(data[:7]))


def test_slow_streams(tmp_path):
    stream = Trickle()
    save({"x": make(np.arange(100))}, stream)
    stream.seek(0)
    np.testing.assert_array_equal(values(load(stream)["x"]), np.arange(100))


def test_an_archive_inside_a_larger_file():
    buffer = io.BytesIO(b"header--")
    buffer.seek(8)
    save([1, 2], buffer)
    buffer.seek(8)
    assert load(buffer) == [1, 2]


def test_checksums_can_be_left_out():
    set_crc32_options(False)
    try:
        data = saved(make(np.ones(3)))
    finally:
        set_crc32_options(True)
    assert {record.crc for record in ArchiveReader(io.BytesIO(data)).records.values()} == {0}
    np.testing.assert_array_equal(values(loaded(data)), 1)
