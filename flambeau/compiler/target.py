"""What differs between the machines that kernels are generated for.

The host's instructions are chosen from the processor's feature *flags*: the model name that LLVM
guesses is wrong on many virtual machines.  Nothing here needs LLVM, so a process whose kernels are
all in the object cache never loads it.
"""

from __future__ import annotations

import ctypes
import functools
import platform
from dataclasses import dataclass
from pathlib import Path

from flambeau.compiler.builder import Builder, Var
from flambeau.core.config import config

_ELEMENT_BITS = {"i1": 8, "half": 16, "bfloat": 16, "float": 32, "double": 64, "ptr": 64}

# The kernel's flag -> LLVM's feature, for the features that code generation can choose by itself
# or that an intrinsic needs.  Everything in this table is spelt out to LLVM, present or absent,
# so that the model name decides on instruction costs only.
_X86_FEATURES = {
    "pni": "sse3",
    "ssse3": "ssse3",
    "cx16": "cx16",
    "sse4_1": "sse4.1",
    "sse4_2": "sse4.2",
    "popcnt": "popcnt",
    "movbe": "movbe",
    "aes": "aes",
    "pclmulqdq": "pclmul",
    "avx": "avx",
    "f16c": "f16c",
    "fma": "fma",
    "avx2": "avx2",
    "bmi1": "bmi",
    "bmi2": "bmi2",
    "abm": "lzcnt",
    "adx": "adx",
    "gfni": "gfni",
    "vaes": "vaes",
    "vpclmulqdq": "vpclmulqdq",
    "avx_vnni": "avxvnni",
    "avx512f": "avx512f",
    "avx512cd": "avx512cd",
    "avx512bw": "avx512bw",
    "avx512dq": "avx512dq",
    "avx512vl": "avx512vl",
    "avx512ifma": "avx512ifma",
    "avx512vbmi": "avx512vbmi",
    "avx512_vbmi2": "avx512vbmi2",
    "avx512_vnni": "avx512vnni",
    "avx512_bitalg": "avx512bitalg",
    "avx512_vpopcntdq": "avx512vpopcntdq",
    "avx512_bf16": "avx512bf16",
    "avx512_fp16": "avx512fp16",
    "amx_tile": "amx-tile",
    "amx_int8": "amx-int8",
    "amx_bf16": "amx-bf16",
}
_ARM_FEATURES = {
    "fp": "fp-armv8",
    "asimd": "neon",
    "atomics": "lse",
    "asimdrdm": "rdm",
    "asimdhp": "fullfp16",
    "asimddp": "dotprod",
    "asimdfhm": "fp16fml",
    "fcma": "complxnum",
    "bf16": "bf16",
    "i8mm": "i8mm",
}

_AVX512 = frozenset({"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"})
_AVX2 = frozenset({"avx2", "fma", "f16c", "bmi", "bmi2"})
_NEON = frozenset({"neon"})

_Kinds = tuple[tuple[str, int, frozenset[str]], ...]
"""Best first: the name, its vector bits, the features that it needs"""
_X86_KINDS: _Kinds = (
    ("avx512", 512, _AVX512 | _AVX2),
    ("avx2", 256, _AVX2),
    ("scalar", 0, frozenset()),
)
_ARM_KINDS: _Kinds = (("neon", 128, _NEON), ("scalar", 0, frozenset()))


@dataclass(frozen=True)
class Target:
    """One machine: its names for LLVM, and what the schedules ask about it."""

    name: str
    """``avx512``, ``avx2``, ``neon``, ``scalar`` or ``nvptx``"""
    triple: str
    cpu: str
    features: frozenset[str]
    """The features at hand, in LLVM's spelling"""
    attributes: str
    """LLVM's feature string: each known feature switched on or off"""
    vector_bits: int
    """Width of the vector registers; 0 where code stays scalar"""
    data_layout: str = ""
    """Empty: LLVM's own for the triple"""

    def lanes(self, element: str) -> int:
        """Elements of an LLVM type (``float``, ``i8`` …) in one vector; 1 on a scalar target."""
        bits = _ELEMENT_BITS.get(element) or int(element.removeprefix("i"))
        return max(1, self.vector_bits // bits)

    @property
    def architecture(self) -> str:
        return self.triple.partition("-")[0]

    @property
    def identity(self) -> str:
        """Everything that changes the generated code, as one string (part of the cache key)."""
        return f"{self.name} {self.triple} {self.cpu} {self.attributes} {self.vector_bits}"

    @staticmethod
    def nvptx(sm: str = "sm_90") -> GpuTarget:
        """NVIDIA GPUs of compute capability ``sm``; one lane per thread."""
        number = int(sm.removeprefix("sm_").rstrip("a"))
        return NvptxTarget(
            name="nvptx",
            triple="nvptx64-nvidia-cuda",
            cpu=sm,
            features=frozenset({f"ptx{_ptx_version(number)}"}),
            attributes=f"+ptx{_ptx_version(number)}",
            vector_bits=0,
            data_layout="e-p6:32:32-i64:64-i128:128-i256:256-v16:16-v32:32-n16:32:64",
        )


class GpuTarget(Target):
    """A machine that runs a kernel in many threads: a grid of blocks of `block_threads` each."""

    block_threads = 256
    """Threads per block: part of the definition of a reduction's result"""
    convention = ""
    """LLVM's calling convention of kernels"""

    def thread_index(self, b: Builder) -> Var:
        """This thread's number within its block, as i64."""
        raise AssertionError(f"{type(self).__name__} does not say which thread it is")

    def block_index(self, b: Builder) -> Var:
        """This block's number within the grid."""
        raise AssertionError(f"{type(self).__name__} does not say which block it is")

    def block_count(self, b: Builder) -> Var:
        """How many blocks the grid has."""
        raise AssertionError(f"{type(self).__name__} does not say how many blocks there are")

    def barrier(self, b: Builder) -> None:
        """Waits until every thread of the block is here."""
        raise AssertionError(f"{type(self).__name__} has no barrier")

    def shared(self, b: Builder, name: str, type_: str) -> tuple[Var, str]:
        """Memory of the block: its address, and a global definition that the module needs."""
        raise AssertionError(f"{type(self).__name__} has no shared memory")

    def device_pointer(self, b: Builder, pointer: Var) -> Var:
        """A pointer from the argument block as one to the device's memory."""
        return pointer


class NvptxTarget(GpuTarget):
    """NVIDIA GPUs, through PTX."""

    convention = "ptx_kernel "

    def _register(self, b: Builder, name: str) -> Var:
        number = b.intrinsic(f"llvm.nvvm.read.ptx.sreg.{name}.x", "i32")
        return b.convert("zext", number, "i64")

    def thread_index(self, b: Builder) -> Var:
        return self._register(b, "tid")

    def block_index(self, b: Builder) -> Var:
        return self._register(b, "ctaid")

    def block_count(self, b: Builder) -> Var:
        return self._register(b, "nctaid")

    def barrier(self, b: Builder) -> None:
        b.declarations.add("declare void @llvm.nvvm.barrier0()")
        b.do("call void @llvm.nvvm.barrier0()")

    def shared(self, b: Builder, name: str, type_: str) -> tuple[Var, str]:
        definition = f"@{name} = internal addrspace(3) global {type_} undef, align 16"
        return Var("ptr addrspace(3)", f"@{name}"), definition

    def device_pointer(self, b: Builder, pointer: Var) -> Var:
        return b.emit("ptr addrspace(1)", f"addrspacecast {pointer} to ptr addrspace(1)")


def _ptx_version(compute_capability: int) -> int:
    """The oldest PTX version that knows the processor, so that old drivers can load the text."""
    versions = ((100, 86), (90, 78), (89, 78), (87, 74), (86, 71), (80, 70), (75, 63))
    return next((ptx for capability, ptx in versions if compute_capability >= capability), 60)


@functools.cache
def processor_flags() -> frozenset[str]:
    """The feature flags that the operating system reports for the first processor."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    for line in text.splitlines():
        field, _, value = line.partition(":")
        if field.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def host() -> Target:
    """The machine that this process runs on, or the lesser one that `config.target` forces."""
    flags = processor_flags()
    if "amx_tile" in flags and not tiles_permitted():
        flags -= {flag for flag in flags if flag.startswith("amx")}
    return describe_host(platform.machine(), flags, config.target)


# Linux on x86-64: arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA).
_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA = 158, 0x1023, 18


@functools.cache
def tiles_permitted() -> bool:
    """Asks Linux, once, for the use of tile registers in this process and its threads."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        return bool(libc.syscall(_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA) == 0)
    except (OSError, AttributeError):
        return False


@functools.cache
def describe_host(machine: str, flags: frozenset[str], forced: str | None) -> Target:
    """The target for a machine with these flags; ``forced`` may only take features away."""
    if machine in ("x86_64", "AMD64"):
        return _describe_x86(_translate(flags, _X86_FEATURES), forced)
    if machine in ("aarch64", "arm64"):
        return _describe_arm(_translate(flags, _ARM_FEATURES), forced)
    raise RuntimeError(
        f"flambeau generates code for x86-64 and AArch64 processors; this one is {machine!r}"
    )


def _translate(flags: frozenset[str], table: dict[str, str]) -> frozenset[str]:
    return frozenset(feature for flag, feature in table.items() if flag in flags)


def _describe_x86(features: frozenset[str], forced: str | None) -> Target:
    name, bits = _choose(_X86_KINDS, features, forced)
    if name != "avx512":
        features = frozenset(f for f in features if not f.startswith(("avx512", "amx")))
    if name == "scalar":
        features = frozenset()
    cpu = {"avx512": "skylake-avx512", "avx2": "haswell", "scalar": "x86-64"}[name]
    if "avx512fp16" in features:
        cpu = "sapphirerapids"
    elif "avx512vbmi2" in features:
        cpu = "icelake-server"
    attributes = _spell(features, _X86_FEATURES)
    if name == "avx512":
        attributes += ",-prefer-256-bit"
    return Target(name, "x86_64-unknown-linux-gnu", cpu, features, attributes, bits)


def _describe_arm(features: frozenset[str], forced: str | None) -> Target:
    name, bits = _choose(_ARM_KINDS, features, forced)
    # Scalar floating point needs the register file that comes with NEON: only the width differs.
    features = features | {"neon", "fp-armv8"}
    attributes = _spell(features, _ARM_FEATURES)
    return Target(name, "aarch64-unknown-linux-gnu", "generic", features, attributes, bits)


def _choose(kinds: _Kinds, features: frozenset[str], forced: str | None) -> tuple[str, int]:
    possible = [(name, bits) for name, bits, needed in kinds if needed <= features]
    if forced is None:
        return possible[0]
    for name, bits in possible:
        if name == forced:
            return name, bits
    raise RuntimeError(f"FLAMBEAU_TARGET={forced} is not possible on this processor")


def _spell(features: frozenset[str], table: dict[str, str]) -> str:
    return ",".join(("+" if name in features else "-") + name for name in table.values())
