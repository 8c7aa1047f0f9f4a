"""Flat, position-independent machine code: made once from LLVM's object file, loaded without LLVM.

An `Image` is one run of bytes (code and constants first, writable data last) whose internal
references are already relative to each other.  What remains are *slots*: 8-byte words that hold an
absolute address, filled when the image is loaded.  A call of an external function (``fmodf``,
``memcpy``) goes through a small jump stub that reads its slot.

Loading maps anonymous memory, copies, fills the slots and makes the code executable: some tens of
microseconds, where LLVM's own loader costs its import.
"""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

X86_64 = 62
AARCH64 = 183
_MAGIC = b"FLAMBIM2"
_HEADER = struct.Struct("<8s32sIIIIIIQQ")
_NO_EXTERNAL = 0xFFFFFFFF


class ImageError(Exception):
    """The object file holds something that an image cannot express, or the image is damaged."""


@dataclass(frozen=True, slots=True)
class Slot:
    """``*(uint64*)(base + offset) = target``: an image offset, or an external plus an addend."""

    offset: int
    external: int | None
    addend: int


@dataclass(frozen=True)
class Image:
    """Machine code ready to be copied to any page-aligned address."""

    machine: int
    data: bytes
    """The bytes to copy; the rest of ``size`` is zero"""
    code_size: int
    """Bytes that become read-only and executable; a multiple of the page size if data follow"""
    size: int
    symbols: dict[str, int]
    externals: tuple[str, ...] = ()
    slots: tuple[Slot, ...] = ()

    def to_bytes(self) -> bytes:
        """The image as a file, with a checksum over everything behind it."""
        names = "\0".join((*self.symbols, *self.externals)).encode()
        words = [*self.symbols.values()]
        for slot in self.slots:
            external = _NO_EXTERNAL if slot.external is None else slot.external
            words += (slot.offset, external, slot.addend & 0xFFFFFFFFFFFFFFFF)
        body = b"".join((struct.pack(f"<{len(words)}Q", *words), names, self.data))
        counts = (self.machine, len(self.symbols), len(self.externals), len(self.slots))
        sizes = (len(names), len(self.data), self.code_size, self.size)
        tail = _HEADER.pack(b"", b"", *counts, *sizes)[40:]
        return _MAGIC + hashlib.sha256(tail + body).digest() + tail + body

    @staticmethod
    def from_bytes(file: bytes) -> Image:
        """Reads `to_bytes`' result; `ImageError` when it was cut or changed."""
        if len(file) < _HEADER.size or file[:8] != _MAGIC:
            raise ImageError("not a kernel image")
        if hashlib.sha256(memoryview(file)[40:]).digest() != file[8:40]:
            raise ImageError("kernel image is damaged: its checksum does not match")
        header = _HEADER.unpack_from(file)
        machine, symbol_count, external_count, slot_count = header[2:6]
        names_size, data_size, code_size, size = header[6:]
        words = struct.unpack_from(f"<{symbol_count + 3 * slot_count}Q", file, _HEADER.size)
        start = _HEADER.size + 8 * len(words)
        names = file[start : start + names_size].decode().split("\0")
        data = file[start + names_size :]
        assert len(data) == data_size
        return Image(
            machine=machine,
            data=data,
            code_size=code_size,
            size=size,
            symbols=dict(zip(names, words[:symbol_count], strict=False)),
            externals=tuple(names[symbol_count : symbol_count + external_count]),
            slots=tuple(_read_slot(words, symbol_count + 3 * k) for k in range(slot_count)),
        )


def _read_slot(words: tuple[int, ...], at: int) -> Slot:
    offset, external, addend = words[at : at + 3]
    return Slot(offset, None if external == _NO_EXTERNAL else external, addend)


# -- reading the object file ---------------------------------------------------------------------

_ALLOCATED, _WRITABLE, _EXECUTABLE, _THREAD_LOCAL = 2, 1, 4, 0x400
_SYMBOLS, _RELOCATIONS_WITH_ADDEND, _ZERO_FILLED, _RELOCATIONS = 2, 4, 8, 9
_UNDEFINED, _ABSOLUTE, _COMMON = 0, 0xFFF1, 0xFFF2


@dataclass(slots=True)
class _Section:
    name: str
    type: int
    flags: int
    contents: bytes
    size: int
    link: int
    info: int
    alignment: int
    offset: int = -1
    """Where the section lies in the image; -1 while it is not part of it"""

    @property
    def loaded(self) -> bool:
        # Unwind tables are left out: nothing unwinds through a kernel.
        return bool(self.flags & _ALLOCATED) and self.name != ".eh_frame" and self.size > 0

    @property
    def writable(self) -> bool:
        # .data.rel.ro is written by the loader only
        return bool(self.flags & _WRITABLE) and not self.name.startswith(".data.rel.ro")


@dataclass(frozen=True, slots=True)
class _Symbol:
    name: str
    value: int
    section: int
    is_global: bool


@dataclass(frozen=True, slots=True)
class _Object:
    machine: int
    sections: list[_Section]
    symbols: list[_Symbol]


def _read_object(file: bytes) -> _Object:
    if file[:7] != b"\x7fELF\x02\x01\x01":
        raise ImageError("not a 64-bit little-endian ELF object")
    machine = struct.unpack_from("<H", file, 18)[0]
    table = struct.unpack_from("<Q", file, 40)[0]
    entry_size, count, names_index = struct.unpack_from("<HHH", file, 58)
    headers = [
        struct.unpack_from("<IIQQQQIIQQ", file, table + k * entry_size) for k in range(count)
    ]
    names = file[headers[names_index][4] :]
    sections = [_read_section(file, header, names) for header in headers]
    return _Object(machine, sections, _read_symbols(sections))


def _read_section(file: bytes, header: tuple[int, ...], names: bytes) -> _Section:
    name, type_, flags, _, offset, size, link, info, alignment, _ = header
    contents = b"" if type_ == _ZERO_FILLED else file[offset : offset + size]
    return _Section(_text(names, name), type_, flags, contents, size, link, info, alignment)


def _read_symbols(sections: list[_Section]) -> list[_Symbol]:
    for section in sections:
        if section.type == _SYMBOLS:
            names = sections[section.link].contents
            return [
                _Symbol(_text(names, name), value, index, info >> 4 != 0)
                for name, info, _, index, value, _ in struct.iter_unpack(
                    "<IBBHQQ", section.contents
                )
            ]
    return []


def _text(names: bytes, start: int) -> str:
    return names[start : names.index(b"\0", start)].decode()


# -- laying out and relocating -------------------------------------------------------------------


def build_image(file: bytes) -> Image:
    """The image of a relocatable object that LLVM emitted with reloc=pic, codemodel=small."""
    return _Linker(_read_object(file)).link()


@dataclass(slots=True)
class _Linker:
    """Builds one image; lives for one call of `build_image`."""

    object: _Object
    memory: bytearray = field(default_factory=bytearray)
    externals: list[str] = field(default_factory=list)
    unfilled: list[tuple[int, _Symbol, int]] = field(default_factory=list)
    """(offset, symbol, addend) of every slot: resolved once all sections have their place"""
    addresses: dict[tuple[str, int, int], int] = field(default_factory=dict)
    """Slots made for a symbol's address (a small global offset table)"""
    stubs: dict[str, int] = field(default_factory=dict)

    def link(self) -> Image:
        machine = self.object.machine
        if machine not in _RELOCATORS:
            raise ImageError(f"no relocations known for ELF machine {machine}")
        self._check_sections()
        loaded = [section for section in self.object.sections if section.loaded]
        self._place([section for section in loaded if not section.writable])
        self._make_slots_and_stubs()
        code_size = len(self.memory)
        writable = [section for section in loaded if section.writable]
        if writable:
            # Pages of AArch64 systems may have 64 KiB.
            self._align(4096 if machine == X86_64 else 65536)
            code_size = len(self.memory)
            self._place(writable)
        self._relocate()
        slots = tuple(self._slot(*entry) for entry in self.unfilled)
        return Image(
            machine=machine,
            data=bytes(self.memory),
            code_size=code_size,
            size=len(self.memory),
            symbols=self._exports(),
            externals=tuple(self.externals),
            slots=slots,
        )

    def _check_sections(self) -> None:
        for section in self.object.sections:
            if section.flags & _THREAD_LOCAL:
                raise ImageError(f"thread-local data are not supported (section {section.name})")
            if section.name.startswith((".init_array", ".fini_array", ".ctors", ".dtors")):
                raise ImageError(f"constructors are not supported (section {section.name})")
            if section.type == _RELOCATIONS:
                raise ImageError(f"relocations without addend are not supported ({section.name})")

    def _align(self, alignment: int) -> None:
        self.memory.extend(bytes(-len(self.memory) % max(1, alignment)))

    def _place(self, sections: list[_Section]) -> None:
        for section in sections:
            self._align(section.alignment)
            section.offset = len(self.memory)
            self.memory += section.contents or bytes(section.size)

    def _relocations(self) -> list[tuple[_Section, int, int, _Symbol, int]]:
        """(section, offset in it, type, symbol, addend) of every relocation of loaded sections."""
        found = []
        for table in self.object.sections:
            if table.type != _RELOCATIONS_WITH_ADDEND:
                continue
            section = self.object.sections[table.info]
            if not section.loaded:
                continue
            for offset, info, addend in struct.iter_unpack("<QQq", table.contents):
                symbol = self.object.symbols[info >> 32]
                found.append((section, offset, info & 0xFFFFFFFF, symbol, addend))
        return found

    def _make_slots_and_stubs(self) -> None:
        """Room behind the code for every address and every jump that relocations will ask for."""
        machine = self.object.machine
        self._align(16)
        for _, _, kind, symbol, addend in self._relocations():
            if kind in _THROUGH_SLOT[machine]:
                self._slot_for(symbol, 0 if machine == X86_64 else addend)
            elif kind in _CALLS[machine] and symbol.section == _UNDEFINED:
                self._stub_for(symbol)

    def _slot_for(self, symbol: _Symbol, addend: int) -> int:
        key = (symbol.name, symbol.section, symbol.value + addend)
        if key not in self.addresses:
            self._align(8)
            self.addresses[key] = len(self.memory)
            self.memory += bytes(8)
            self.unfilled.append((self.addresses[key], symbol, addend))
        return self.addresses[key]

    def _stub_for(self, symbol: _Symbol) -> int:
        if symbol.name not in self.stubs:
            slot = self._slot_for(symbol, 0)
            self._align(16)
            self.stubs[symbol.name] = len(self.memory)
            self.memory += _STUBS[self.object.machine](slot - len(self.memory))
        return self.stubs[symbol.name]

    def _slot(self, offset: int, symbol: _Symbol, addend: int) -> Slot:
        if symbol.section != _UNDEFINED:
            return Slot(offset, None, self._address(symbol) + addend)
        if symbol.name not in self.externals:
            self.externals.append(symbol.name)
        return Slot(offset, self.externals.index(symbol.name), addend)

    def _address(self, symbol: _Symbol) -> int:
        if symbol.section == _UNDEFINED:
            raise ImageError(f"external symbol {symbol.name!r} can only be called")
        if symbol.section in (_ABSOLUTE, _COMMON) or symbol.section >= len(self.object.sections):
            raise ImageError(f"symbol {symbol.name!r} lies in no section")
        section = self.object.sections[symbol.section]
        if section.offset < 0:
            raise ImageError(f"symbol {symbol.name!r} lies in section {section.name}, not loaded")
        return section.offset + symbol.value

    def _relocate(self) -> None:
        machine = self.object.machine
        relocators = _RELOCATORS[machine]
        for section, offset, kind, symbol, addend in self._relocations():
            place = section.offset + offset
            if kind == _ABSOLUTE_64[machine]:
                self.unfilled.append((place, symbol, addend))
                continue
            if kind not in relocators:
                raise ImageError(
                    f"relocation type {kind} of ELF machine {machine} against {symbol.name!r} "
                    f"in {section.name} is not supported"
                )
            if kind in _THROUGH_SLOT[machine]:
                target = self._slot_for(symbol, 0 if machine == X86_64 else addend)
                target += addend if machine == X86_64 else 0
            elif kind in _CALLS[machine] and symbol.section == _UNDEFINED:
                target = self._stub_for(symbol) + addend
            else:
                target = self._address(symbol) + addend
            relocators[kind](self.memory, place, target)

    def _exports(self) -> dict[str, int]:
        return {
            symbol.name: self._address(symbol)
            for symbol in self.object.symbols
            if symbol.is_global and symbol.section not in (_UNDEFINED, _ABSOLUTE)
        }


Relocator = Callable[[bytearray, int, int], None]


def _relative_32(memory: bytearray, place: int, target: int) -> None:
    distance = target - place
    if not -(1 << 31) <= distance < 1 << 31:
        raise ImageError("a relative reference does not fit 32 bits")
    struct.pack_into("<i", memory, place, distance)


def _relative_64(memory: bytearray, place: int, target: int) -> None:
    struct.pack_into("<q", memory, place, target - place)


def _merge_bits(memory: bytearray, place: int, mask: int, bits: int) -> None:
    instruction = struct.unpack_from("<I", memory, place)[0]
    struct.pack_into("<I", memory, place, (instruction & ~mask) | (bits & mask))


def _branch(bits: int, shift: int) -> Relocator:
    """A jump whose distance in words takes ``bits`` bits of the instruction from ``shift``."""

    def apply(memory: bytearray, place: int, target: int) -> None:
        distance = target - place
        if distance % 4 or not -(1 << (bits + 1)) <= distance < 1 << (bits + 1):
            raise ImageError("a branch does not reach its target")
        _merge_bits(memory, place, ((1 << bits) - 1) << shift, (distance >> 2) << shift)

    return apply


def _page_of(memory: bytearray, place: int, target: int) -> None:
    """ADRP: the distance between 4 KiB pages; images are loaded at page boundaries."""
    pages = (target >> 12) - (place >> 12)
    if not -(1 << 20) <= pages < 1 << 20:
        raise ImageError("a page-relative reference does not fit 21 bits")
    _merge_bits(memory, place, 0x60FFFFE0, ((pages & 3) << 29) | ((pages >> 2 & 0x7FFFF) << 5))


def _byte_distance(memory: bytearray, place: int, target: int) -> None:
    """ADR"""
    distance = target - place
    if not -(1 << 20) <= distance < 1 << 20:
        raise ImageError("a relative reference does not fit 21 bits")
    _merge_bits(
        memory, place, 0x60FFFFE0, ((distance & 3) << 29) | ((distance >> 2 & 0x7FFFF) << 5)
    )


def _low_12(scale: int) -> Relocator:
    """The low 12 bits of the target as an immediate counted in units of ``1 << scale`` bytes."""

    def apply(memory: bytearray, place: int, target: int) -> None:
        low = target & 0xFFF
        if low & ((1 << scale) - 1):
            raise ImageError("a load or store refers to an unaligned address")
        _merge_bits(memory, place, 0xFFF << 10, (low >> scale) << 10)

    return apply


# Numbers of the relocation types: System V ABI for x86-64, ELF for the Arm 64-bit architecture.
_RELOCATORS: dict[int, dict[int, Relocator]] = {
    X86_64: {
        2: _relative_32,  # PC32
        4: _relative_32,  # PLT32
        9: _relative_32,  # GOTPCREL
        24: _relative_64,  # PC64
        41: _relative_32,  # GOTPCRELX
        42: _relative_32,  # REX_GOTPCRELX
    },
    AARCH64: {
        260: _relative_64,  # PREL64
        261: _relative_32,  # PREL32
        273: _branch(19, 5),  # LD_PREL_LO19
        274: _byte_distance,  # ADR_PREL_LO21
        275: _page_of,  # ADR_PREL_PG_HI21
        276: _page_of,  # ADR_PREL_PG_HI21_NC
        277: _low_12(0),  # ADD_ABS_LO12_NC
        278: _low_12(0),  # LDST8_ABS_LO12_NC
        279: _branch(14, 5),  # TSTBR14
        280: _branch(19, 5),  # CONDBR19
        282: _branch(26, 0),  # JUMP26
        283: _branch(26, 0),  # CALL26
        284: _low_12(1),  # LDST16_ABS_LO12_NC
        285: _low_12(2),  # LDST32_ABS_LO12_NC
        286: _low_12(3),  # LDST64_ABS_LO12_NC
        299: _low_12(4),  # LDST128_ABS_LO12_NC
        311: _page_of,  # ADR_GOT_PAGE
        312: _low_12(3),  # LD64_GOT_LO12_NC
    },
}
_ABSOLUTE_64 = {X86_64: 1, AARCH64: 257}
_THROUGH_SLOT = {X86_64: frozenset({9, 41, 42}), AARCH64: frozenset({311, 312})}
_CALLS = {X86_64: frozenset({4}), AARCH64: frozenset({282, 283})}


def _x86_stub(distance: int) -> bytes:
    """``jmp *[rip + slot]``"""
    return b"\xff\x25" + struct.pack("<i", distance - 6)


def _arm_stub(distance: int) -> bytes:
    """``ldr x16, slot`` and ``br x16``"""
    return struct.pack("<II", 0x58000010 | ((distance >> 2) & 0x7FFFF) << 5, 0xD61F0200)


_STUBS: dict[int, Callable[[int], bytes]] = {X86_64: _x86_stub, AARCH64: _arm_stub}


# -- loading -------------------------------------------------------------------------------------

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_READ_WRITE, _READ_EXECUTE = 3, 5
_FAILED = ctypes.c_void_p(-1).value


class Functions(dict[str, int]):
    """Addresses by name, in code that stays in memory for as long as this object lives."""

    __slots__ = ("_base", "_size")

    def __init__(self, addresses: dict[str, int], base: int, size: int) -> None:
        super().__init__(addresses)
        self._base = base
        self._size = size

    def __del__(self) -> None:
        # While the interpreter shuts down, threads of the pool may still run code.
        if not sys.is_finalizing():
            _libc.munmap(self._base, self._size)


def load_image(image: Image) -> Functions:
    """Copies the image into this process; its functions."""
    addresses = [_external_address(name) for name in image.externals]
    base = _libc.mmap(None, image.size, _READ_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    if base is None or base == _FAILED:
        raise MemoryError(f"no memory for {image.size} bytes of machine code")
    ctypes.memmove(base, image.data, len(image.data))
    for slot in image.slots:
        start = base if slot.external is None else addresses[slot.external]
        value = (start + slot.addend) & 0xFFFFFFFFFFFFFFFF
        ctypes.c_uint64.from_address(base + slot.offset).value = value
    # On AArch64 Linux makes the instruction cache coherent when a page becomes executable.
    if _libc.mprotect(base, image.code_size, _READ_EXECUTE):
        raise OSError(ctypes.get_errno(), "the system forbids executable memory (mprotect)")
    addresses_by_name = {name: base + offset for name, offset in image.symbols.items()}
    return Functions(addresses_by_name, base, image.size)


def _external_address(name: str) -> int:
    """The address of a C function: this process's own libraries first, then libm and libgcc."""
    for library in (None, "libm.so.6", "libgcc_s.so.1"):
        try:
            function = getattr(ctypes.CDLL(library), name)
        except (AttributeError, OSError):
            continue
        address = ctypes.cast(function, ctypes.c_void_p).value
        if address:
            return address
    raise ImageError(f"the kernel calls {name!r}, which no system library provides")
