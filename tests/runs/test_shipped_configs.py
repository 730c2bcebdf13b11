"""Configs by path and by name."""

import pytest

from hyperrecon_jax.runs import shipped_configs
from hyperrecon_jax.runs.shipped_configs import FOLDER, find
from hyperrecon_jax.runtime.errors import InputError


def test_a_name_is_a_shipped_config():
    assert find("quickstart") == str(FOLDER / "quickstart.py")
    assert find("paper_denoise:S") == f"{FOLDER}/paper_denoise.py:S"


@pytest.mark.parametrize("config", ["quickstart.py", "configs/quickstart", "gone.py:S", "/tmp", "./quickstart"])
def test_a_path_stays(config):
    assert find(config) == config


def test_a_file_comes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").touch()
    assert find("quickstart:S") == "quickstart:S"


def test_an_unknown_name_is_told_with_those_that_exist(tmp_path):
    with pytest.raises(InputError, match=r"^--config must be a file or one of ao_quickstart, .*; got 'quickstrt'\.$"):
        find("quickstrt:S")
    (tmp_path / "a.py").touch()
    with pytest.raises(InputError, match=r"^--plan must be a file or one of a; got 'b'\.$"):
        find("b", folder=tmp_path, flag="--plan")


def test_the_folder_is_that_of_the_checkout():
    assert (shipped_configs.FOLDER / "quickstart.py").is_file()
