"""The demo command from the outside: what it prints, saves and draws."""

import gzip
import os
import pty
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import flambeau
from flambeau.demo.digits import load_packaged
from flambeau.models import LeNet5

ROOT = Path(__file__).resolve().parent.parent.parent
COMMAND = [sys.executable, "-m", "flambeau", "demo"]


def run(*arguments, **environment):
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The demo as a user types it, but for the folder."""
    out = tmp_path_factory.mktemp("demo")
    result = run("--out", str(out))
    assert result.returncode == 0, result.stderr
    return out, result.stdout


def test_it_learns_to_read_digits(finished):
    _, text = finished
    assert text.startswith("LeNet-5 on MNIST digits: 5,000 pictures to learn, 1,000 to test\n")
    (accuracy,) = re.findall(r"test accuracy ([\d.]+)%", text)
    assert float(accuracy) >= 96
    assert "What to try next" in text


def test_saved_weights_give_the_printed_accuracy(finished):
    out, text = finished
    model = LeNet5()
    model.load_state_dict(flambeau.load(out / "lenet.pth"))
    digits = load_packaged()
    images = (flambeau.from_numpy(digits.test_images).unsqueeze(1).float() / 255 - 0.1307) / 0.3081
    with flambeau.no_grad():
        found = model.eval()(images).argmax(dim=1).numpy()
    assert f"test accuracy {(found == digits.test_labels).mean():.1%}" in text


def test_it_draws(finished):
    pytest.importorskip("matplotlib")
    out, _ = finished
    assert (out / "lenet.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_it_says_how_to_get_it(tmp_path):
    (tmp_path / "matplotlib.py").write_text("raise ImportError('hidden')")
    out = tmp_path / "new" / "folder"
    result = run("--quick", "--out", str(out), PYTHONPATH=str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert "pip install 'flambeau[plot]'" in result.stdout
    assert [path.name for path in out.iterdir()] == ["lenet.pth"]


def test_on_a_terminal_there_is_a_bar(tmp_path):
    pytest.importorskip("rich")
    mine, theirs = pty.openpty()
    command = [*COMMAND, "--quick", "--out", str(tmp_path)]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=theirs, stderr=theirs)
    os.close(theirs)
    output = b""
    while True:
        try:
            part = os.read(mine, 65536)
        except OSError:
            break
        if not part:
            break
        output += part
    os.close(mine)
    assert process.wait() == 0, output.decode()
    assert "100/100" in output.decode()
    assert "━" in output.decode()


def test_other_pictures(tmp_path):
    digits = load_packaged()
    for part, images, labels in (
        ("train", digits.train_images[:200], digits.train_labels[:200]),
        ("t10k", digits.test_images[:50], digits.test_labels[:50]),
    ):
        header = struct.pack(">IIII", 0x0803, *images.shape)
        content = gzip.compress(header + images.tobytes())
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(content)
        header = struct.pack(">II", 0x0801, len(labels))
        content = header + labels.astype("u1").tobytes()
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(content)
    result = run("--quick", "--data", str(tmp_path), "--out", str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert "200 pictures to learn, 50 to test" in result.stdout


def test_mistakes_are_explained(tmp_path):
    result = run("--data", str(tmp_path))
    assert result.returncode == 1
    message = f"flambeau demo: {tmp_path} has no train-images-idx3-ubyte (or .gz); found: nothing\n"
    assert result.stderr == message
    assert run("--epochs", "0").returncode == 2
