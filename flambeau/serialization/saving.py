"""``torch.save``: an object into an archive of PyTorch's format."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, BinaryIO

from flambeau.serialization.archive import ALIGNMENT, ArchiveWriter
from flambeau.serialization.atomic import replacing
from flambeau.serialization.legacy import save_legacy
from flambeau.serialization.pickling import StorageTable, pickle_object

DEFAULT_PROTOCOL = 2
_PathLike = str | os.PathLike[str]


@dataclass
class _Options:
    """How files are written, for the whole process."""

    compute_crc32: bool = True


_options = _Options()


def get_crc32_options() -> bool:
    """Returns whether `save` computes the checksums of the records it writes."""
    return _options.compute_crc32


def set_crc32_options(compute_crc32: bool) -> None:
    """Sets whether `save` computes checksums; without them other zip tools may complain."""
    _options.compute_crc32 = bool(compute_crc32)


def save(
    obj: Any,
    f: _PathLike | BinaryIO,
    pickle_module: ModuleType = pickle,
    pickle_protocol: int = DEFAULT_PROTOCOL,
    _use_new_zipfile_serialization: bool = True,
    _disable_byteorder_record: bool = False,
) -> None:
    """Writes an object to a file that both this library and PyTorch can load.

    A path gets its new contents as a whole: whatever happens on the way, either the old file is
    there or the new one.

    Args:
        obj: the object
        f: a path, or an object with ``write``
        pickle_module: the module whose pickler is used, if it is one written in Python
        pickle_protocol: the protocol of the pickle
    """
    with _opened_for_writing(f) as (stream, name):
        if _use_new_zipfile_serialization:
            writer = ArchiveWriter(stream, name, _options.compute_crc32)
            _save_archive(obj, writer, pickle_module, pickle_protocol, _disable_byteorder_record)
        else:
            save_legacy(obj, stream, pickle_module, pickle_protocol)
            if hasattr(stream, "flush"):
                stream.flush()


@contextlib.contextmanager
def _opened_for_writing(f: _PathLike | BinaryIO) -> Iterator[tuple[BinaryIO, str]]:
    """The stream to write to, and the name of the folder inside the archive."""
    if isinstance(f, str | os.PathLike):
        path = os.fsdecode(f)
        _check_folder(path)
        with replacing(path) as stream:
            yield stream, _folder_name(path)
        return
    if not hasattr(f, "write"):
        raise AttributeError(
            "expected 'f' to be string, path, or a file-like object with a 'write' attribute"
        )
    yield f, "archive"


def _check_folder(path: str) -> None:
    folder = os.path.dirname(path)
    if folder and not os.path.isdir(folder):
        raise RuntimeError(f"Parent directory {folder} does not exist.")


def _folder_name(path: str) -> str:
    """The file's name without its last extension, if it is plain text."""
    stem, _, rest = os.path.basename(path).rpartition(".")
    name = stem or rest
    return name if name.isascii() else "archive"


def _save_archive(
    obj: Any, writer: ArchiveWriter, pickle_module: ModuleType, protocol: int, no_byteorder: bool
) -> None:
    table = StorageTable()
    text = io.BytesIO()
    pickle_object(obj, text, pickle_module, protocol, table.saved_id)
    writer.write_record("data.pkl", text.getbuffer())
    writer.write_record(".format_version", b"1")
    writer.write_record(".storage_alignment", str(ALIGNMENT).encode())
    if not no_byteorder:
        writer.write_record("byteorder", sys.byteorder.encode())
    for key, typed in table.storages.items():
        writer.write_record(f"data/{key}", typed.storage.memory())
    writer.write_record("version", b"3\n")
    writer.finish()
