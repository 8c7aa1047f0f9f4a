"""The recorded cases again, with PyTorch at hand: are the records still what it does?"""

import pytest

torch = pytest.importorskip("torch")

from tests import (  # noqa: E402 - only where torch is
    inplace_cases,
    interchange_cases,
    semantics,
    tensor_cases,
    view_cases,
)
from tests.autograd import (  # noqa: E402
    function_cases,
    graph_cases,
    hook_cases,
    mode_cases,
)
from tests.ops import creation_cases, indexing_cases, random_cases  # noqa: E402

TABLES = {
    "graph": graph_cases.CASES,
    "hooks": hook_cases.CASES,
    "modes": mode_cases.CASES,
    "functions": function_cases.CASES,
    "inplace": inplace_cases.CASES,
    "tensor": tensor_cases.CASES,
    "views": view_cases.CASES,
    "interchange": interchange_cases.CASES,
    "indexing": indexing_cases.CASES,
    "creation": creation_cases.CASES,
    "random": random_cases.CASES,
}


@pytest.mark.parametrize("title", TABLES)
def test_records_are_current(title: str) -> None:
    expected = semantics.recorded(title)
    assert expected.keys() == TABLES[title].keys()
    for name, case in TABLES[title].items():
        told = semantics.difference(expected[name], semantics.outcome(torch, case))
        assert told is None, f"{name}{told}"
