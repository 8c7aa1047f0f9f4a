"""Images: flat machine code that loads without LLVM."""

import ctypes
import math
import platform
import struct

import pytest

from flambeau.compiler import image as image_module
from flambeau.compiler import jit
from flambeau.compiler.image import AARCH64, Image, ImageError, build_image, load_image
from flambeau.compiler.target import describe_host, host

# Internal calls, external calls, constants, a jump table, writable data, pointers in data,
# addresses of functions: every kind of reference that a kernel can hold.
MODULE = """
declare float @fmodf(float, float)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
@constants = internal constant [4 x float] [float 1.0, float 2.0, float 3.0, float 4.0]
@wide = internal constant [2 x <4 x float>] [<4 x float> <float 1.0, float 2.0, float 3.0,
  float 4.0>, <4 x float> <float 5.0, float 6.0, float 7.0, float 8.0>], align 16
@quad = internal global <4 x float> <float 0.0, float 0.0, float 0.0, float 0.0>, align 16
@byte = internal global i8 3
@half.word = internal global i16 5
@word = internal global i32 7
@counter = internal global i64 40
@room = internal global [100 x i64] zeroinitializer
@functions = internal constant [2 x ptr] [ptr @triple, ptr @remainder]
define float @triple(float %a) noinline {
  %r = fmul float %a, 3.0
  ret float %r
}
define float @remainder(float %a) noinline {
  %p = getelementptr float, ptr @constants, i64 2
  %b = load volatile float, ptr %p
  %y = call float @fmodf(float %a, float %b)
  %z = fadd float %y, 3.3125
  ret float %z
}
define float @by_index(i64 %i, float %a) {
  %p = getelementptr ptr, ptr @functions, i64 %i
  %f = load ptr, ptr %p
  %r = call float %f(float %a)
  ret float %r
}
define ptr @address() {
  ret ptr @triple
}
define i64 @count() {
  %v = load i64, ptr @counter
  %w = add i64 %v, 1
  store i64 %w, ptr @counter
  store i64 %w, ptr getelementptr (i64, ptr @room, i64 99)
  %z = load i64, ptr getelementptr (i64, ptr @room, i64 3)
  %s = add i64 %w, %z
  ret i64 %s
}
define i64 @widths() {
  %a = load volatile i8, ptr @byte
  %b = load volatile i16, ptr @half.word
  %c = load volatile i32, ptr @word
  store volatile i8 %a, ptr @byte
  %d = zext i8 %a to i64
  %e = zext i16 %b to i64
  %f = zext i32 %c to i64
  %g = add i64 %d, %e
  %h = add i64 %g, %f
  ret i64 %h
}
define float @vector_sum(i64 %i) {
  %p = getelementptr <4 x float>, ptr @wide, i64 1
  %v = load <4 x float>, ptr @wide
  %w = load <4 x float>, ptr %p
  %q = load volatile <4 x float>, ptr @quad, align 16
  %t = fadd <4 x float> %v, %q
  %s = fadd <4 x float> %t, %w
  %r = extractelement <4 x float> %s, i64 %i
  ret float %r
}
define i32 @choose(i32 %x, ptr %out) {
  switch i32 %x, label %other [i32 0, label %a  i32 1, label %b  i32 2, label %c
                               i32 3, label %d  i32 4, label %e]
a:
  store i32 5, ptr %out
  ret i32 11
b:
  store i64 6, ptr %out
  ret i32 22
c:
  store i16 7, ptr %out
  ret i32 37
d:
  store i8 8, ptr %out
  ret i32 49
e:
  store i32 9, ptr %out
  ret i32 90
other:
  ret i32 0
}
define void @copy(ptr %to, ptr %from, i64 %n) {
  call void @llvm.memcpy.p0.p0.i64(ptr %to, ptr %from, i64 %n, i1 false)
  ret void
}
"""
NEON = describe_host("aarch64", frozenset({"fp", "asimd"}), None)


def call(address, result, *types):
    return ctypes.CFUNCTYPE(result, *types)(address)


@pytest.fixture(scope="module")
def functions():
    image = jit.emit_image(MODULE, host())
    return load_image(Image.from_bytes(image.to_bytes()))


def test_calls_and_constants(functions):
    by_index = call(functions["by_index"], ctypes.c_float, ctypes.c_int64, ctypes.c_float)
    assert by_index(0, 2.5) == 7.5
    assert by_index(1, 7.5) == math.fmod(7.5, 3) + 3.3125
    assert call(functions["address"], ctypes.c_void_p)() == functions["triple"]


def test_writable_data(functions):
    count = call(functions["count"], ctypes.c_int64)
    assert [count(), count(), count()] == [41, 42, 43]
    assert call(functions["widths"], ctypes.c_int64)() == 15


def test_vectors_and_jump_tables(functions):
    vector_sum = call(functions["vector_sum"], ctypes.c_float, ctypes.c_int64)
    assert [vector_sum(i) for i in range(4)] == [6, 8, 10, 12]
    choose = call(functions["choose"], ctypes.c_int32, ctypes.c_int32, ctypes.c_void_p)
    out = ctypes.c_int64()
    found = [(choose(i, ctypes.addressof(out)), out.value & 0xFF) for i in range(-1, 6)]
    assert found == [(0, 0), (11, 5), (22, 6), (37, 7), (49, 8), (90, 9), (0, 9)]


def test_external_functions(functions):
    source, copied = bytes(range(256)) * 40, ctypes.create_string_buffer(256 * 40)
    copy = call(functions["copy"], None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int64)
    copy(copied, source, len(source))
    assert copied.raw == source


def test_each_loading_has_its_own_data():
    image = jit.emit_image(MODULE, host())
    first, second = load_image(image), load_image(image)
    assert call(first["count"], ctypes.c_int64)() == 41
    assert call(second["count"], ctypes.c_int64)() == 41


def test_code_is_not_writable(functions):
    address = functions["triple"]
    for line in open("/proc/self/maps"):
        span, mode = line.split()[:2]
        start, end = (int(text, 16) for text in span.split("-"))
        if start <= address < end:
            assert mode.startswith("r-x")
            return
    pytest.fail("the code is not mapped")


@pytest.mark.parametrize("target", [host(), NEON], ids=["host", "aarch64"])
def test_file_round_trip(target):
    image = jit.emit_image(MODULE, target)
    assert Image.from_bytes(image.to_bytes()) == image
    assert {"fmodf", "memcpy"} == set(image.externals)


def test_damaged_files_are_refused():
    file = jit.emit_image(MODULE, host()).to_bytes()
    for damaged in (b"", b"x", file[:-1], file[: len(file) // 2], b"\0" * len(file), file + b"\0"):
        with pytest.raises(ImageError):
            Image.from_bytes(damaged)
    for position in range(0, len(file), 97):
        changed = bytearray(file)
        changed[position] ^= 0x10
        with pytest.raises(ImageError):
            Image.from_bytes(bytes(changed))


def test_unknown_external_function():
    text = "declare void @no_such_function()\ndefine void @f() {\n call void @no_such_function()\n"
    image = jit.emit_image(text + " ret void\n}", host())
    with pytest.raises(ImageError, match="no_such_function"):
        load_image(image)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("@x = external global i32\ndefine i32 @f() {\n %v = load i32, ptr @x\n ret i32 %v\n}", ""),
        (
            "@x = external dso_local global i32\n"
            "define i32 @f() {\n %v = load i32, ptr @x\n ret i32 %v\n}",
            "can only be called",
        ),
        (
            "@x = thread_local global i32 1\n"
            "define i32 @f() {\n %v = load i32, ptr @x\n ret i32 %v\n}",
            "thread-local",
        ),
        (
            "@llvm.global_ctors = appending global [1 x { i32, ptr, ptr }] "
            "[{ i32, ptr, ptr } { i32 1, ptr @f, ptr null }]\ndefine void @f() {\n ret void\n}",
            "constructors",
        ),
    ],
)
def test_what_images_cannot_express(text, reason):
    """External data go through a slot (and fail at load); the rest is refused at once."""
    if not reason:
        assert jit.emit_image(text, host()).externals == ("x",)
        return
    with pytest.raises(jit.CompileError, match=reason):
        jit.emit_image(text, host())


def test_only_objects_are_read():
    with pytest.raises(ImageError, match="not a 64-bit"):
        build_image(b"#!/bin/sh\n" + bytes(100))


# -- AArch64: relocations are checked against the manual's encodings, decoded here by hand ---------


def sign(value, bits):
    return value - (1 << bits) if value >> (bits - 1) & 1 else value


def page(instruction, place):
    """What ADRP at ``place`` computes."""
    assert instruction & 0x9F000000 == 0x90000000
    pages = sign((instruction >> 5 & 0x7FFFF) << 2 | instruction >> 29 & 3, 21)
    return (place & ~0xFFF) + pages * 4096


def immediate_12(instruction):
    """The unsigned offset of ADD or of LDR/STR, in bytes."""
    value = instruction >> 10 & 0xFFF
    if instruction & 0x7F800000 == 0x11000000:
        return value
    assert instruction & 0x3B000000 == 0x39000000, hex(instruction)
    size = instruction >> 30
    if instruction & 0x04800000 == 0x04800000:
        size = 4
    return value << size


def branch_target(instruction, place):
    assert instruction & 0x7C000000 == 0x14000000
    return place + 4 * sign(instruction & 0x3FFFFFF, 26)


def test_aarch64_relocations():
    file = jit.emit_object(MODULE, NEON)
    image = build_image(file)
    assert image.machine == AARCH64
    linker = image_module._Linker(image_module._read_object(file))
    linker.link()
    seen = set()
    for section, offset, kind, symbol, addend in linker._relocations():
        if kind == 257:
            continue
        seen.add(kind)
        place = section.offset + offset
        instruction = struct.unpack_from("<I", image.data, place)[0]
        if kind in (282, 283):
            target = branch_target(instruction, place)
            if symbol.section == 0:
                check_stub(image, target, symbol.name)
            else:
                assert target == linker._address(symbol) + addend
            continue
        if kind in (311, 312):
            wanted = linker._slot_for(symbol, addend)
        else:
            wanted = linker._address(symbol) + addend
        if kind in (275, 311):
            assert page(instruction, place) == wanted & ~0xFFF
        else:
            assert immediate_12(instruction) == wanted & 0xFFF
    assert {275, 277, 278, 284, 285, 286, 299, 283, 311, 312} <= seen


def check_stub(image, stub, name):
    """``ldr x16, slot; br x16`` where the slot holds the external's address."""
    load, jump = struct.unpack_from("<II", image.data, stub)
    assert load & 0xFF00001F == 0x58000010
    assert jump == 0xD61F0200
    slot = stub + 4 * sign(load >> 5 & 0x7FFFF, 19)
    (found,) = [s for s in image.slots if s.offset == slot]
    assert image.externals[found.external] == name


def test_aarch64_runs_in_an_emulator():
    """Loads the image at some page of an emulated processor and calls its functions."""
    unicorn = pytest.importorskip("unicorn")
    arm = pytest.importorskip("unicorn.arm64_const")
    image = jit.emit_image(MODULE, NEON)
    base, stack, external, stop = 0x123457000, 0x7F0000000, 0x200000000, 0x300000000
    machine = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)
    for start, size in ((base, (image.size + 4095) & -4096), (stack, 65536), (external, 4096)):
        machine.mem_map(start, size)
    machine.mem_map(stop, 4096)
    memory = bytearray(image.data)
    for slot in image.slots:
        start = base if slot.external is None else external + 16 * slot.external
        struct.pack_into("<Q", memory, slot.offset, start + slot.addend)
    machine.mem_write(base, bytes(memory))
    # Every external function returns its second argument: fmov s0, s1; ret
    for number in range(len(image.externals)):
        machine.mem_write(external + 16 * number, struct.pack("<II", 0x1E204020, 0xD65F03C0))
    machine.reg_write(arm.UC_ARM64_REG_CPACR_EL1, 3 << 20)

    def run(name, *integers, value=0.0):
        machine.reg_write(arm.UC_ARM64_REG_SP, stack + 32768)
        machine.reg_write(arm.UC_ARM64_REG_X30, stop)
        machine.reg_write(arm.UC_ARM64_REG_S0, struct.unpack("<I", struct.pack("<f", value))[0])
        for register, integer in zip(
            (arm.UC_ARM64_REG_X0, arm.UC_ARM64_REG_X1), integers, strict=False
        ):
            machine.reg_write(register, integer)
        machine.emu_start(base + image.symbols[name], stop)
        bits = machine.reg_read(arm.UC_ARM64_REG_S0)
        return machine.reg_read(arm.UC_ARM64_REG_X0), struct.unpack("<f", struct.pack("<I", bits))[
            0
        ]

    assert run("by_index", 0, value=2.5)[1] == 7.5
    assert run("by_index", 1, value=7.5)[1] == 3.0 + 3.3125
    assert run("address")[0] == base + image.symbols["triple"]
    assert [run("count")[0] for _ in range(3)] == [41, 42, 43]
    assert run("widths")[0] == 15
    assert [run("vector_sum", i)[1] for i in range(4)] == [6, 8, 10, 12]
    assert [run("choose", i, stack)[0] for i in range(6)] == [11, 22, 37, 49, 90, 0]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="relocations of x86-64")
def test_x86_uses_every_kind_of_reference():
    file = jit.emit_object(MODULE, host())
    linker = image_module._Linker(image_module._read_object(file))
    linker.link()
    kinds = {kind for _, _, kind, _, _ in linker._relocations()}
    assert {1, 2, 4} <= kinds and kinds & {9, 41, 42}
