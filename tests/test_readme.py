"""What the README tells people to type is what is checked."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
CHECKS = (ROOT / ".ci" / "run").read_text()


def test_the_test_command_is_the_one_of_the_checks():
    (command,) = re.findall(r"\.venv/bin/(python -m pytest.*)", README)
    assert f"step 'tests' {command}\n" in CHECKS
    (extra,) = re.findall(r"pip install -e ('\.\[test\]')", README)
    assert f"pip install -q -e {extra}" in CHECKS


def test_every_file_it_names_exists():
    linked = re.findall(r"\]\(([^)#:]+)\)", README)
    named = re.findall(r"`((?:\.?[\w-]+/)+[\w.-]*)`", README)
    assert linked
    for name in linked + named:
        assert (ROOT / name).exists(), name


def test_contributing_gives_the_same_set_up():
    set_up = re.findall(r"^    (python3 -m venv .*pytest.*)$", README, re.MULTILINE)
    assert set_up == re.findall(
        r"^    (python3 -m venv .*pytest.*)$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE
    )
