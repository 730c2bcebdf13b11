"""Accidents: folders from somebody else, interruptions, damage, and two commands at once. Nothing is lost or executed."""

import json
import shutil
import sys

import pytest

from hyperrecon_jax import data
from hyperrecon_jax.runtime.errors import InputError

SETTINGS = {"size": 16, "subjects": (1, 1, 1), "slices": 1}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    root = tmp_path_factory.mktemp("cache")
    data.mni(**SETTINGS, cache=root)
    return root


# A cache from somebody else.

CLASS = {"pythonClassName": "evil_feature.Tensor"}
EVIL = "import pathlib\npathlib.Path(__file__).with_suffix('.executed').touch()\n"


def change_json(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("features.json", lambda content: content.update(CLASS)),
        ("features.json", lambda content: content["featuresDict"]["features"]["image"].update(CLASS)),
        ("features.json", lambda content: content["featuresDict"]["features"].update(other={**CLASS, "tensor": {}})),
        ("features.json", lambda content: content.update({"type": "evil_feature.Tensor", "content": {}})),
        ("dataset_info.json", lambda content: content.update(features=CLASS)),
    ],
)
def test_a_cache_from_somebody_else_imports_nothing(cache, tmp_path, monkeypatch, name, change):
    """Its files name a class in a module of the working folder, which TFDS would import."""
    shutil.copytree(cache, tmp_path / "cache")
    (tmp_path / "evil_feature.py").write_text(EVIL)
    monkeypatch.syspath_prepend(tmp_path)
    (file,) = (tmp_path / "cache").rglob(name)
    change_json(file, change)
    with pytest.raises(InputError, match="names other classes than ours"):
        data.mni(**SETTINGS, cache=tmp_path / "cache")
    assert "evil_feature" not in sys.modules
    assert not list(tmp_path.rglob("*.executed"))
