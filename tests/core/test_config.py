"""The environment is read in one place, strictly where the name is ours."""

from pathlib import Path

import pytest

from flambeau.core.config import DEBUG_TOPICS, DEFAULT_WINDOW, from_environment, usable_processors


def test_defaults():
    config = from_environment({"HOME": "/home/someone"})
    assert config.window == DEFAULT_WINDOW
    assert config.cache_dir == Path("/home/someone/.cache/flambeau")
    assert config.num_threads == usable_processors() >= 1
    assert config.target is None and config.debug == frozenset()


def test_cache_folder():
    assert from_environment({"XDG_CACHE_HOME": "/x", "HOME": "/h"}).cache_dir == Path("/x/flambeau")
    assert from_environment({"FLAMBEAU_CACHE_DIR": "/y", "HOME": "/h"}).cache_dir == Path("/y")
    assert from_environment({"FLAMBEAU_CACHE_DIR": "off", "HOME": "/h"}).cache_dir is None
    assert from_environment({}).cache_dir is None


def test_threads():
    assert from_environment({"OMP_NUM_THREADS": "3"}).num_threads == 3
    assert from_environment({"OMP_NUM_THREADS": "3,2"}).num_threads == 3
    assert from_environment({"OMP_NUM_THREADS": "many"}).num_threads == usable_processors()
    both = {"FLAMBEAU_NUM_THREADS": "5", "OMP_NUM_THREADS": "3"}
    assert from_environment(both).num_threads == 5


def test_switches():
    assert from_environment({"FLAMBEAU_WINDOW": "1"}).window == 1
    assert from_environment({"FLAMBEAU_TARGET": "AVX2"}).target == "avx2"
    assert from_environment({"FLAMBEAU_DEBUG": "plan, tape"}).debug == {"plan", "tape"}
    assert from_environment({"FLAMBEAU_DEBUG": "1"}).debug == DEBUG_TOPICS
    assert from_environment({"FLAMBEAU_DEBUG": "0"}).debug == frozenset()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FLAMBEAU_WINDOW", "0"),
        ("FLAMBEAU_WINDOW", "wide"),
        ("FLAMBEAU_NUM_THREADS", "-1"),
        ("FLAMBEAU_TARGET", "mmx"),
        ("FLAMBEAU_DEBUG", "everything"),
    ],
)
def test_mistakes_are_named(name, value):
    with pytest.raises(ValueError, match=name):
        from_environment({name: value})
