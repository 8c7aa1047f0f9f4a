"""nn against PyTorch itself; needs an interpreter with torch."""

import pytest

reference = pytest.importorskip("torch")

import flambeau  # noqa: E402 - only where torch is
from tests.nn import attention_scripts, cases, computations, embedding_bag_scripts, scripts  # noqa: E402
from tests.nn.test_recorded import same  # noqa: E402

TABLES = [
    *((cases.describe_module, name) for name in cases.MODULES),
    *((cases.describe_start, name) for name in cases.STARTS),
    *((cases.describe_value, name) for name in cases.VALUES),
    *((cases.describe_error, name) for name in cases.ERRORS),
    *((cases.describe_warning, name) for name in cases.WARNINGS),
    *((computations.describe, name) for name in computations.ALL),
    *((scripts.describe, name) for name in scripts.ALL),
    *((attention_scripts.describe, name) for name in attention_scripts.ALL),
    *((cases.describe_error, name) for name in attention_scripts.ERRORS),
    *((cases.describe_warning, name) for name in attention_scripts.WARNINGS),
    *((embedding_bag_scripts.describe, name) for name in embedding_bag_scripts.ALL),
    *((cases.describe_error, name) for name in embedding_bag_scripts.ERRORS),
]


@pytest.mark.parametrize(
    "describe, name", TABLES, ids=lambda value: getattr(value, "__name__", value)
)
def test_as_pytorch(describe, name):
    expected = describe(reference, name)
    found = describe(flambeau, name)
    if not same(expected, found):
        assert expected == found
