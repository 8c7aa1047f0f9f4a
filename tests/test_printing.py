"""The text of a tensor against recorded texts of PyTorch (tools/record_printing.py)."""

from __future__ import annotations

import base64
import json
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest

from flambeau.core import dtype as dtypes
from flambeau.core.device import device
from flambeau.printing import get_printoptions, printoptions, set_printoptions, tensor_repr

CASES = json.loads((Path(__file__).parent / "references" / "printing.json").read_text())


class Node:
    """A stand-in for a node of the graph, known by its class's name."""


class Tensor:
    """What printing asks of a tensor, around a numpy array."""

    fetched = 0

    def __init__(self, array, dtype=None, device_name="cpu", requires_grad=False, grad_fn=None):
        self.array = array
        self.shape = array.shape
        self.dtype = dtype or dtypes.FROM_NUMPY[array.dtype]
        self.device = device(device_name)
        self.requires_grad = requires_grad
        self.grad_fn = grad_fn

    def detach(self):
        return self

    def __getitem__(self, index):
        return Tensor(self.array[index], self.dtype)

    def numpy(self):
        Tensor.fetched += self.array.size
        return self.array


class Parameter(Tensor):
    pass


@pytest.fixture(autouse=True)
def _default_options():
    set_printoptions(profile="default")
    yield
    set_printoptions(profile="default")


def tensor_of(case):
    dtype = dtypes.BY_NAME[case["dtype"]]
    if case["bits"]:
        data = zlib.decompress(base64.b64decode(case["bits"]))
        array = np.frombuffer(data, dtype.numpy).reshape(case["shape"])
    else:
        array = np.zeros(case["shape"], dtype.numpy)
    grad_fn = None
    if case.get("grad_fn"):
        grad_fn = type(case["grad_fn"], (Node,), {})()
    arguments = (case.get("device", "cpu"), case.get("requires_grad", False), grad_fn)
    return Tensor(array, dtype, *arguments)


@pytest.mark.parametrize("number", range(len(CASES)))
def test_prints_as_pytorch(number):
    case = CASES[number]
    set_printoptions(**case["options"])
    default_dtype = dtypes.BY_NAME[case["default_dtype"]]
    assert tensor_repr(tensor_of(case), default_dtype=default_dtype) == case["text"]


def test_suffixes_move_to_a_new_line_when_the_last_one_is_full():
    text = tensor_repr(Tensor(np.arange(17, dtype=np.int32), device_name="cuda:0"))
    assert text.endswith("14, 15, 16],\n       device='cuda:0', dtype=torch.int32)")


def test_device_suffix_of_a_gpu_tensor_precedes_grad_fn():
    node = type("AddBackward0", (Node,), {})()
    tensor = Tensor(np.ones(2, np.float32), device_name="cuda:0", grad_fn=node)
    assert tensor_repr(tensor) == "tensor([1., 1.], device='cuda:0', grad_fn=<AddBackward0>)"


def test_node_with_a_name_method_prints_that_name():
    node = type("CppFunction", (Node,), {"name": lambda self: "torch::autograd::MyBackward"})()
    assert "grad_fn=<MyBackward>" in tensor_repr(Tensor(np.ones(1, np.float32), grad_fn=node))


def test_grad_fn_that_cannot_be_computed_prints_as_invalid():
    class Broken(Tensor):
        grad_fn = property(lambda self: (_ for _ in ()).throw(RuntimeError("stale view")))

        def __init__(self, array):
            self.array, self.shape, self.requires_grad = array, array.shape, True
            self.dtype, self.device = dtypes.float32, device("cpu")

    assert tensor_repr(Broken(np.ones(1, np.float32))) == "Broken([1.], grad_fn=<Invalid>)"


def test_parameter_prints_as_a_tensor_and_other_classes_by_name():
    assert tensor_repr(Parameter(np.ones(1, np.float32))) == "tensor([1.])"
    named = type("Image", (Tensor,), {})
    assert tensor_repr(named(np.ones((2, 1), np.float32))) == "Image([[1.],\n       [1.]])"


def test_a_summary_fetches_its_corners_only():
    Tensor.fetched = 0
    text = tensor_repr(Tensor(np.zeros((1000, 1000), np.float32)))
    assert Tensor.fetched == 36
    assert text.count("...") == 7


def test_given_contents_replace_the_values():
    tensor = Tensor(np.zeros((2, 2), np.int8))
    assert tensor_repr(tensor, tensor_contents="[?]") == "tensor([?], dtype=torch.int8)"


def test_sci_mode_is_forgotten_by_the_next_call_as_in_pytorch():
    set_printoptions(sci_mode=True)
    set_printoptions(precision=2)
    assert get_printoptions() == {
        "precision": 2, "threshold": 1000, "edgeitems": 3, "linewidth": 80, "sci_mode": None,
    }  # fmt: skip


def test_printoptions_restores_what_was_set():
    set_printoptions(precision=1)
    with printoptions(precision=6):
        assert tensor_repr(Tensor(np.array([0.5], np.float32))) == "tensor([0.500000])"
    assert tensor_repr(Tensor(np.array([0.5], np.float32))) == "tensor([0.5])"


def test_printing_while_options_change_sees_whole_options():
    tensor = Tensor(np.full((3, 3), 0.5, np.float32))
    stop = threading.Event()

    def change():
        while not stop.is_set():
            set_printoptions(profile="default")
            set_printoptions(profile="short")

    thread = threading.Thread(target=change)
    thread.start()
    seen = {tensor_repr(tensor) for _ in range(300)}
    stop.set()
    thread.join()
    words = ("0.5000, 0.5000, 0.5000", "0.50, 0.50, 0.50")
    assert all(text.count(words[0]) == 3 or text.count(words[1]) == 3 for text in seen)
