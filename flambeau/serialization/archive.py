"""The container of a ``.pth`` file: a zip archive of uncompressed records, aligned to 64 bytes.

`ArchiveWriter` writes the bytes that PyTorch 2.13 writes; `ArchiveReader` reads an archive record
by record, straight into the caller's memory, and believes nothing that the file says about itself
before it has compared it with the file's size.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from flambeau.serialization.checksum import Checksum

ALIGNMENT = 64
# Copied before it is summed and written, so that the checksum holds even if another thread is
# changing the tensor meanwhile; small enough to stay in the cache between the two.
CHUNK = 1 << 20
UTF8_NAME = 0x0800
HAS_DESCRIPTOR = 0x0008
WIDE = 0xFFFFFFFF

LOCAL_HEADER = struct.Struct("<4sHHHHHIIIHH")
DIRECTORY_ENTRY = struct.Struct("<4sHHHHHHIIIHHHHHII")
DIRECTORY_END = struct.Struct("<4sHHHHIIH")
WIDE_DIRECTORY_END = struct.Struct("<4sQHHIIQQQQ")
WIDE_LOCATOR = struct.Struct("<4sIQI")
# Deflated records are not PyTorch's, but re-zipped files have them; more than this much larger than
# the whole file is taken for a bomb.
INFLATION_LIMIT = 64
INFLATION_ALLOWANCE = 64 << 20


def broken(reason: str) -> RuntimeError:
    """The error for a file that is no archive, or no whole one."""
    return RuntimeError(
        f"PytorchStreamReader failed reading zip archive: {reason} "
        "(the file is corrupted or incomplete)"
    )


@dataclass(frozen=True)
class Record:
    """One entry of the archive, as its central directory describes it."""

    name: str
    header_offset: int
    size: int
    stored_size: int
    crc: int
    is_deflated: bool


# --------------------------------------------------------------------------- writing


class ArchiveWriter:
    """Writes records one after another to a stream, which needs ``write`` only."""

    def __init__(self, stream: Any, name: str, with_crc: bool = True) -> None:
        self._stream = stream
        self._folder = name
        self._with_crc = with_crc
        self._position = 0
        self._records: list[Record] = []
        self._checksum = Checksum()
        # Files of Python's own are done with what they are given when ``write`` returns; others
        # may keep it.
        reuses = isinstance(stream, io.BufferedWriter | io.FileIO | io.BytesIO)
        self._buffer = memoryview(bytearray(CHUNK)) if reuses else None

    def write_record(self, name: str, data: bytes | memoryview) -> None:
        """Appends one record; `data` is only read, never held."""
        offset = self._position
        path = f"{self._folder}/{name}".encode()
        view = memoryview(data).cast("B")
        self._write(self._local_header(path, view.nbytes))
        crc = self._write_counted(view)
        if view.nbytes:
            self._write(self._descriptor(crc, view.nbytes))
        self._records.append(
            Record(path.decode(), offset, view.nbytes, view.nbytes, crc, is_deflated=False)
        )

    def finish(self) -> None:
        """Writes the serialization id and the central directory."""
        self.write_record(".data/serialization_id", self._serialization_id())
        begin = self._position
        for record in self._records:
            self._write(_directory_entry(record))
        count = len(self._records)
        size = self._position - begin
        self._write(_directory_end(count, size, begin, self._position))

    def _write(self, data: bytes | memoryview) -> None:
        written = self._stream.write(data)
        # A raw stream may take less than it is given; None comes from streams that keep no count.
        while written is not None and written < len(data):
            data = memoryview(data)[written:]
            self._position += written
            written = self._stream.write(data)
        self._position += len(data)

    def _write_counted(self, view: memoryview) -> int:
        crc = 0
        for begin in range(0, view.nbytes, CHUNK):
            chunk = self._copied(view[begin : begin + CHUNK])
            if self._with_crc:
                crc = self._checksum.crc32(chunk, crc)
            self._write(chunk)
        return crc

    def _copied(self, part: memoryview) -> bytes | memoryview:
        if self._buffer is None:
            return bytes(part)
        copy = self._buffer[: part.nbytes]
        copy[:] = part
        return copy

    def _local_header(self, path: bytes, size: int) -> bytes:
        wide = struct.pack("<HHQQ", 1, 16, size, size) if size >= WIDE else b""
        field = WIDE if wide else 0
        start = self._position + LOCAL_HEADER.size + len(path) + len(wide) + 4
        filler = -start % ALIGNMENT
        extra = wide + struct.pack("<2sH", b"FB", filler) + b"Z" * filler
        fields = (0, _flags(size), 0, 0, 0, 0, field, field, len(path), len(extra))
        return LOCAL_HEADER.pack(b"PK\x03\x04", *fields) + path + extra

    def _descriptor(self, crc: int, size: int) -> bytes:
        return struct.pack("<4sIQQ" if size >= WIDE else "<4sIII", b"PK\x07\x08", crc, size, size)

    def _serialization_id(self) -> bytes:
        """Forty digits: a hash of the records' names and one of their contents."""
        names = "\n".join(record.name.partition("/")[2] for record in self._records)
        contents = b"".join(record.crc.to_bytes(4, "little") for record in self._records)
        high = zlib.crc32(names.encode()) << 32 | zlib.adler32(names.encode())
        low = zlib.crc32(contents) << 32 | zlib.adler32(contents)
        return f"{high:020d}{low:020d}".encode()


def _flags(size: int) -> int:
    """Empty records have no descriptor behind their data."""
    return UTF8_NAME | (HAS_DESCRIPTOR if size else 0)


def _directory_entry(record: Record) -> bytes:
    path = record.name.encode()
    wide_fields = [
        value for value in (record.size, record.size, record.header_offset) if value >= WIDE
    ]
    extra = b""
    if wide_fields:
        extra = struct.pack(f"<HH{len(wide_fields)}Q", 1, 8 * len(wide_fields), *wide_fields)
    size = min(record.size, WIDE)
    offset = min(record.header_offset, WIDE)
    sizes = (record.crc, size, size, len(path), len(extra))
    fields = (0, 0, _flags(record.size), 0, 0, 0, *sizes, 0, 0, 0, 0, offset)
    return DIRECTORY_ENTRY.pack(b"PK\x01\x02", *fields) + path + extra


def _directory_end(count: int, size: int, begin: int, end: int) -> bytes:
    wide = WIDE_DIRECTORY_END.pack(
        b"PK\x06\x06", 44, 0x031E, 45, 0, 0, count, count, size, begin
    ) + WIDE_LOCATOR.pack(b"PK\x06\x07", 0, end, 1)
    short = DIRECTORY_END.pack(
        b"PK\x05\x06",
        0,
        0,
        min(count, 0xFFFF),
        min(count, 0xFFFF),
        min(size, WIDE),
        min(begin, WIDE),
        0,
    )
    return wide + short


# --------------------------------------------------------------------------- reading


class ArchiveReader:
    """Random access to the records of an archive that fills a seekable file from `start` on."""

    def __init__(self, file: Any, start: int = 0) -> None:
        self._file = file
        self._start = start
        self._checksum = Checksum()
        self.size = file.seek(0, io.SEEK_END) - start
        begin, size, count = self._find_directory()
        self.records = {record.name: record for record in self._read_directory(begin, size, count)}
        if not self.records:
            raise broken("the central directory is empty")
        self._check_sizes()
        self.folder = next(iter(self.records)).partition("/")[0]

    def __contains__(self, name: str) -> bool:
        return f"{self.folder}/{name}" in self.records

    def record(self, name: str) -> Record:
        """The record of that name, without the archive's folder."""
        found = self.records.get(f"{self.folder}/{name}")
        if found is None:
            raise RuntimeError(
                f"PytorchStreamReader failed locating file {name}: file not found in archive"
            )
        return found

    def read(self, name: str) -> bytes:
        """The whole record."""
        record = self.record(name)
        data = bytearray(record.size)
        self.read_into(record, memoryview(data))
        return bytes(data)

    def read_into(self, record: Record, target: memoryview) -> None:
        """Fills `target`, which has the record's size, from the file, and checks the checksum."""
        begin = self.data_offset(record)
        if record.is_deflated:
            crc = self._inflate_into(begin, record, target)
        else:
            crc = self._copy_into(begin, target)
        # PyTorch writes 0 under `set_crc32_options(False)`.
        if record.crc not in (0, crc):
            raise broken(f"the checksum of {record.name} does not match its contents")

    def data_offset(self, record: Record) -> int:
        """Where in the archive the record's bytes begin, by the lengths in its local header."""
        header = self._read_at(record.header_offset, LOCAL_HEADER.size)
        magic, *_, path_length, extra_length = LOCAL_HEADER.unpack(header)
        if magic != b"PK\x03\x04":
            raise broken(f"there is no record where {record.name} should begin")
        begin = record.header_offset + LOCAL_HEADER.size + path_length + extra_length
        if begin + record.stored_size > self.size:
            raise broken(f"{record.name} reaches past the end of the file")
        return begin

    def _copy_into(self, begin: int, target: memoryview) -> int:
        self._file.seek(self._start + begin)
        crc = 0
        for start in range(0, target.nbytes, CHUNK):
            chunk = target[start : start + CHUNK]
            read_exactly(self._file, chunk)
            crc = self._checksum.crc32(chunk, crc)
        return crc

    def _inflate_into(self, begin: int, record: Record, target: memoryview) -> int:
        inflater = zlib.decompressobj(-15)
        filled = 0
        crc = 0
        for start in range(0, record.stored_size, CHUNK):
            data = self._read_at(begin + start, min(CHUNK, record.stored_size - start))
            while data:
                piece = inflater.decompress(data, CHUNK)
                data = inflater.unconsumed_tail
                if filled + len(piece) > target.nbytes:
                    raise broken(f"{record.name} is longer than the archive says")
                target[filled : filled + len(piece)] = piece
                filled += len(piece)
                crc = zlib.crc32(piece, crc)
        if filled != target.nbytes:
            raise broken(f"{record.name} is shorter than the archive says")
        return crc

    def _read_at(self, offset: int, size: int) -> bytes:
        if offset < 0 or offset + size > self.size:
            raise broken("a record lies outside the file")
        self._file.seek(self._start + offset)
        data = bytearray(size)
        read_exactly(self._file, memoryview(data))
        return bytes(data)

    def _find_directory(self) -> tuple[int, int, int]:
        """Offset, size in bytes and number of entries of the central directory."""
        tail_size = min(self.size, DIRECTORY_END.size + 0xFFFF)
        tail = self._read_at(self.size - tail_size, tail_size)
        at = tail.rfind(b"PK\x05\x06")
        if at < 0 or len(tail) - at < DIRECTORY_END.size:
            raise broken("failed finding central directory")
        end = self.size - tail_size + at
        *_, count, size, begin, _ = DIRECTORY_END.unpack_from(tail, at)
        if WIDE in (size, begin) or count == 0xFFFF:
            begin, size, count = self._find_wide_directory(end)
        if begin + size > end:
            raise broken("the central directory lies outside the file")
        return begin, size, count

    def _find_wide_directory(self, end: int) -> tuple[int, int, int]:
        locator = self._read_at(end - WIDE_LOCATOR.size, WIDE_LOCATOR.size)
        magic, _, position, _ = WIDE_LOCATOR.unpack(locator)
        if magic != b"PK\x06\x07":
            raise broken("failed finding central directory")
        wide = WIDE_DIRECTORY_END.unpack(self._read_at(position, WIDE_DIRECTORY_END.size))
        if wide[0] != b"PK\x06\x06":
            raise broken("failed finding central directory")
        *_, count, size, begin = wide
        return begin, size, count

    def _read_directory(self, begin: int, size: int, count: int) -> Iterator[Record]:
        directory = self._read_at(begin, size)
        position = 0
        for _ in range(count):
            if position + DIRECTORY_ENTRY.size > size:
                raise broken("the central directory is cut short")
            fields = DIRECTORY_ENTRY.unpack_from(directory, position)
            lengths = fields[10:13]
            position += DIRECTORY_ENTRY.size
            body = directory[position : position + sum(lengths)]
            if fields[0] != b"PK\x01\x02" or len(body) < sum(lengths):
                raise broken("the central directory is damaged")
            position += sum(lengths)
            yield _record_of(fields, body)

    def _check_sizes(self) -> None:
        """Refuses archives whose records claim more bytes than the file can hold."""
        records = self.records.values()
        if sum(record.stored_size for record in records) > self.size:
            raise broken("its records overlap or reach past the end of the file")
        inflated = sum(record.size for record in records if record.is_deflated)
        if inflated > INFLATION_ALLOWANCE + INFLATION_LIMIT * self.size:
            raise broken(f"its compressed records would take {inflated} bytes")


def _record_of(fields: tuple[Any, ...], body: bytes) -> Record:
    """The record that a directory entry (its fixed fields, then name and extra data) describes."""
    flags, method, crc, stored_size, size = fields[3], fields[4], *fields[7:10]
    path_length, extra_length = fields[10:12]
    header_offset = fields[16]
    try:
        name = body[:path_length].decode("utf-8")
    except UnicodeDecodeError:
        raise broken("the name of a record is not text") from None
    values = [size, stored_size, header_offset]
    if WIDE in values:
        extra = body[path_length : path_length + extra_length]
        size, stored_size, header_offset = _widened(values, extra, name)
    if flags & 1 or method not in (0, 8):
        raise broken(f"{name} is encrypted or compressed by an unsupported method")
    if method == 0 and size != stored_size:
        raise broken(f"{name} has two different sizes")
    return Record(name, header_offset, size, stored_size, crc, is_deflated=method == 8)


def _widened(values: list[int], extra: bytes, name: str) -> list[int]:
    """Replaces fields that are too wide for 32 bits by those of the zip64 extra data."""
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, position)
        position += 4
        if kind == 1:
            wide = iter(struct.unpack_from(f"<{length // 8}Q", extra[position : position + length]))
            try:
                return [next(wide) if value == WIDE else value for value in values]
            except (StopIteration, RuntimeError):
                break
        position += length
    raise broken(f"the size of {name} is missing")


def read_exactly(file: Any, target: memoryview) -> None:
    """Fills `target` from the file's position, or raises if the file ends before."""
    filled = 0
    while filled < target.nbytes:
        count = _read_some(file, target[filled:])
        if not count:
            raise broken("the file ends too early")
        filled += count


def _read_some(file: Any, target: memoryview) -> int:
    if hasattr(file, "readinto"):
        return file.readinto(target) or 0
    data = file.read(min(target.nbytes, CHUNK))
    target[: len(data)] = data
    return len(data)
