"""The object cache: what is found where, and what happens when the disk misbehaves."""

import ctypes
import os
import shutil
import subprocess
import sys
import threading
import warnings

import pytest

from flambeau.compiler import jit
from flambeau.compiler.target import Target, describe_host, host
from flambeau.core.config import config

SQUARE = """
define void @square(ptr %args, i64 %begin, i64 %end) {
  %p = load ptr, ptr %args
  %v = load i64, ptr %p
  %w = mul i64 %v, %v
  store i64 %w, ptr %p
  ret void
}
"""
counter = iter(range(1 << 30))


def fresh_key():
    return f"test_jit {os.getpid()} {next(counter)}"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "cache_dir", tmp_path / "cache")
    monkeypatch.setattr(jit._disk, "_disabled", set())
    return tmp_path / "cache"


@pytest.fixture
def forget(monkeypatch):
    """Calling it makes the process forget what it loaded, as a new process would."""

    def forget_all():
        monkeypatch.setattr(jit, "_loaded", {})
        monkeypatch.setattr(jit, "_kept", {})

    return forget_all


def refuse():
    raise AssertionError("the source was asked for although the code is cached")


def square(address, value):
    cell, args = ctypes.c_int64(value), (ctypes.c_void_p * 1)()
    args[0] = ctypes.addressof(cell)
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(address)
    function(ctypes.addressof(args), 0, 1)
    return cell.value


def files(cache):
    return [path for path in cache.rglob("*") if path.is_file()]


def test_process_then_disk_then_llvm(cache, forget):
    key = fresh_key()
    first = jit.compile_module(key, lambda: SQUARE, ["square"])
    assert square(first["square"], 7) == 49
    assert jit.compile_module(key, refuse, ["square"]) is first
    assert len(files(cache)) == 1
    forget()
    again = jit.compile_module(key, refuse, ["square"])
    assert again is not first and square(again["square"], 8) == 64


def test_target_and_passes_are_part_of_the_key(cache, monkeypatch):
    key = fresh_key()
    jit.compile_module(key, lambda: SQUARE, ["square"])
    monkeypatch.setattr(config, "target", "scalar")
    lesser = jit.compile_module(key, lambda: SQUARE, ["square"], passes=True)
    assert square(lesser["square"], 5) == 25
    assert len(files(cache)) == 2


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "garbage"])
def test_damaged_files_are_rebuilt(cache, forget, damage):
    key = fresh_key()
    jit.compile_module(key, lambda: SQUARE, ["square"])
    (path,) = files(cache)
    whole = path.read_bytes()
    flipped = whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]
    content = {"truncate": whole[:-20], "flip": flipped, "empty": b"", "garbage": b"\0" * 5000}
    path.write_bytes(content[damage])
    forget()
    assert square(jit.compile_module(key, lambda: SQUARE, ["square"])["square"], 6) == 36
    assert path.read_bytes() == whole


def test_unusable_folder_gives_one_warning(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(config, "cache_dir", tmp_path / "file")
    monkeypatch.setattr(jit._disk, "_disabled", set())
    with pytest.warns(RuntimeWarning, match="cannot be kept in") as caught:
        for _ in range(3):
            found = jit.compile_module(fresh_key(), lambda: SQUARE, ["square"])
            assert square(found["square"], 3) == 9
    assert len(caught) == 1


def test_full_disk_gives_one_warning_and_leaves_nothing(cache, monkeypatch):
    def fail(self, data):
        with open(self, "wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", fail)
    with pytest.warns(RuntimeWarning, match="No space left") as caught:
        for _ in range(2):
            found = jit.compile_module(fresh_key(), lambda: SQUARE, ["square"])
            assert square(found["square"], 3) == 9
    assert len(caught) == 1
    assert files(cache) == []


def test_no_folder_is_silent(monkeypatch):
    monkeypatch.setattr(config, "cache_dir", None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert square(jit.compile_module(fresh_key(), lambda: SQUARE, ["square"])["square"], 2) == 4


def test_the_cache_is_bounded(cache):
    for _ in range(8):
        jit.compile_module(fresh_key(), lambda: SQUARE, ["square"])
    paths = sorted(files(cache), key=lambda path: path.name)
    for age, path in enumerate(paths):
        os.utime(path, (1_000_000 - age, 1_000_000 - age))
    size = paths[0].stat().st_size
    jit._disk.trim(cache / "kernels", size * 8)
    assert len(files(cache)) == 8
    jit._disk.trim(cache / "kernels", size * 4)
    assert sorted(files(cache)) == sorted(paths[:3])


def test_bad_code_is_kept_for_the_report(cache):
    with pytest.raises(jit.CompileError, match="(?s)kernel: broken.*LLVM: .*expected") as caught:
        jit.compile_module("broken " + fresh_key(), lambda: "define nonsense", ["f"])
    assert "report it" in str(caught.value)
    with open(caught.value.ir_path) as file:
        assert file.read() == "define nonsense"
    os.unlink(caught.value.ir_path)
    assert files(cache) == []


def test_verification_errors_are_reported(cache):
    text = "define i32 @f() {\n %a = add i32 %b, 1\n %b = add i32 %a, 1\n ret i32 %b\n}"
    with pytest.raises(jit.CompileError, match="dominate") as caught:
        jit.compile_module(fresh_key(), lambda: text, ["f"])
    os.unlink(caught.value.ir_path)


def test_missing_functions_are_reported(cache):
    with pytest.raises(jit.CompileError, match="defines no function 'cube'"):
        jit.compile_module(fresh_key(), lambda: SQUARE, ["square", "cube"])


def test_compile_many(cache, forget):
    keys = [fresh_key() for _ in range(6)]
    modules = [
        jit.Module(
            key, lambda k=k: SQUARE.replace("mul i64 %v, %v", f"add i64 %v, {k}"), ["square"]
        )
        for k, key in enumerate(keys)
    ]
    found = jit.compile_many([*modules, modules[0]])
    assert [square(f["square"], 10) for f in found] == [10, 11, 12, 13, 14, 15, 10]
    forget()
    cached = [jit.Module(m.key, refuse, m.names) for m in modules]
    assert [square(f["square"], 1) for f in jit.compile_many(cached)] == [1, 2, 3, 4, 5, 6]


def test_threads_share_one_compilation(cache):
    key, calls, results = fresh_key(), [], []

    def source():
        calls.append(1)
        return SQUARE

    def work():
        results.append(jit.compile_module(key, source, ["square"])["square"])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1 and len(set(results)) == 1


PROCESS = """
import sys
from flambeau.compiler import jit
text = '''define i64 @f(i64 %x) {
  %y = add i64 %x, NUMBER
  ret i64 %y
}'''
import ctypes
for k in range(20):
    source = lambda: text.replace("NUMBER", str(k))
    address = jit.compile_module(f"process test {k}", source, ["f"])["f"]
    assert ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(address)(1) == k + 1
print(jit.statistics.compiled, "llvmlite" in sys.modules)
"""


def start(cache):
    environment = {**os.environ, "FLAMBEAU_CACHE_DIR": str(cache), "PYTHONPATH": os.getcwd()}
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROCESS],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_concurrent_processes_share_the_folder(cache):
    running = [start(cache) for _ in range(3)]
    for process in running:
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert len(files(cache)) == 20
    output, errors = start(cache).communicate(timeout=60)
    assert output.split() == ["0", "False"], errors


def test_a_killed_writer_leaves_no_broken_file(cache, forget):
    key = fresh_key()
    jit.compile_module(key, lambda: SQUARE, ["square"])
    (path,) = files(cache)
    shutil.copy(path, path.with_name(".interrupted"))
    path.unlink()
    forget()
    assert square(jit.compile_module(key, lambda: SQUARE, ["square"])["square"], 4) == 16


def test_version_follows_the_sources():
    assert jit.code_version() == jit.code_version()
    assert "0." in jit._llvm_stamp()


def test_ptx_text():
    text = """
    declare i32 @llvm.nvvm.read.ptx.sreg.tid.x()
    define ptx_kernel void @set(ptr addrspace(1) %p) {
      %i = call i32 @llvm.nvvm.read.ptx.sreg.tid.x()
      %q = getelementptr i32, ptr addrspace(1) %p, i32 %i
      store i32 %i, ptr addrspace(1) %q
      ret void
    }
    """
    for sm in ("sm_75", "sm_80", "sm_90"):
        ptx = jit.emit_assembly(text, Target.nvptx(sm))
        assert ".visible .entry set" in ptx and f".target {sm}" in ptx
        check_with_ptxas(ptx, sm)


def check_with_ptxas(ptx, sm):
    program = shutil.which("ptxas")
    if program is None:
        return
    arguments = [program, f"-arch={sm}", "-", "-o", os.devnull]
    subprocess.run(arguments, input=ptx, text=True, check=True, capture_output=True)


def test_code_differs_by_target():
    text = """
    define void @f(ptr %p) {
      %v = load <16 x float>, ptr %p
      %w = fmul <16 x float> %v, %v
      store <16 x float> %w, ptr %p
      ret void
    }
    """
    arm = jit.emit_assembly(text, describe_host("aarch64", frozenset({"fp", "asimd"}), None))
    assert "fmul\tv" in arm and arm.count("fmul") == 4
    if host().name == "avx512":
        assert "zmm" in jit.emit_assembly(text, host())


def test_loaded_code_is_bounded_and_lives_as_long_as_it_is_held(cache, monkeypatch):
    monkeypatch.setattr(jit, "MAX_MODULES", 4)
    monkeypatch.setattr(jit, "_loaded", {})

    def module(k):
        text = f"define i64 @f(i64 %x) {{\n  %y = add i64 %x, {k}\n  ret i64 %y\n}}"
        return jit.Module(f"bounded {k}", lambda: text, ["f"])

    (held,) = jit.compile_many([module(0)])
    addresses = [jit.compile_many([module(k)])[0]["f"] for k in range(1, 10)]
    assert len(jit._loaded) == 4
    call = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)
    assert call(held["f"])(1) == 1
    assert len(set(addresses)) < len(addresses), "memory of dropped code is used again"
    assert jit.compile_many([module(1)])[0]["f"]
    found = jit.compile_module(*module(2)[:3])["f"]
    jit.compile_many([module(k) for k in range(20, 30)])
    assert call(found)(1) == 3
