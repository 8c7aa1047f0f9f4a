"""The host's instructions come from feature flags, and can be forced down."""

import pytest

from flambeau.compiler.target import Target, describe_host, host

X86 = frozenset(
    "pni ssse3 cx16 sse4_1 sse4_2 popcnt avx f16c fma avx2 bmi1 bmi2 abm "
    "avx512f avx512cd avx512bw avx512dq avx512vl amx_tile".split()
)
HASWELL = frozenset(flag for flag in X86 if not flag.startswith(("avx512", "amx")))


def test_the_widest_complete_set_is_chosen():
    assert describe_host("x86_64", X86, None).name == "avx512"
    assert describe_host("x86_64", HASWELL, None).name == "avx2"
    assert describe_host("x86_64", X86 - {"avx512vl"}, None).name == "avx2"
    assert describe_host("x86_64", HASWELL - {"fma"}, None).name == "scalar"
    assert describe_host("aarch64", frozenset({"fp", "asimd"}), None).name == "neon"
    assert describe_host("aarch64", frozenset(), None).name == "scalar"


def test_forcing_takes_features_away():
    target = describe_host("x86_64", X86, "avx2")
    assert target.vector_bits == 256
    assert not [name for name in target.features if name.startswith(("avx512", "amx"))]
    assert "-avx512f" in target.attributes.split(",")
    assert describe_host("x86_64", X86, "scalar").features == frozenset()
    with pytest.raises(RuntimeError, match="not possible"):
        describe_host("x86_64", HASWELL, "avx512")
    with pytest.raises(RuntimeError, match="riscv64"):
        describe_host("riscv64", frozenset(), None)


@pytest.mark.parametrize(
    ("forced", "counts"),
    [("avx512", (64, 32, 16, 8)), ("avx2", (32, 16, 8, 4)), ("scalar", (1, 1, 1, 1))],
)
def test_lanes(forced, counts):
    target = describe_host("x86_64", X86, forced)
    assert tuple(map(target.lanes, ("i8", "bfloat", "float", "i64"))) == counts


def test_lanes_of_neon():
    target = describe_host("aarch64", frozenset({"fp", "asimd"}), None)
    assert (target.lanes("float"), target.lanes("double"), target.lanes("i1")) == (4, 2, 16)


def test_targets_that_generate_different_code_differ_in_identity():
    targets = [describe_host("x86_64", X86, name) for name in ("avx512", "avx2", "scalar")]
    targets += [Target.nvptx("sm_80"), Target.nvptx("sm_90")]
    assert len({target.identity for target in targets}) == 5


def test_host_is_stable():
    assert host() is host()
