"""The package: its wheel holds what it needs, and `hyperrecon` works where there is no checkout."""

import configparser
import email
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import hyperrecon_jax
from hyperrecon_jax import cli

ROOT = Path(__file__).parents[1]
FILES = ["setup.py", "setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"]
SMALL = [
    "--config.data.size=16",
    "--config.data.subjects=(1,1,1)",
    "--config.data.slices=4",
    "--config.model.width=2",
    "--config.model.hyper_width=2",
    "--config.train.steps=2",
    "--config.train.warmup=0",
    "--config.train.save_every=2",
]


def run(*command, cwd, **environment):
    """What a command does, without the checkout on Python's path."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment = {**inherited, **{name: str(value) for name, value in environment.items()}}
    return subprocess.run(
        [*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy, so that the checkout gets no build folder."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in FILES:
        shutil.copy(ROOT / name, folder)
    for name in ("hyperrecon_jax", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", folder / "dist"]
    result = run(sys.executable, "-m", "pip", "wheel", *options, folder, cwd=folder)
    assert result.returncode == 0, result.stderr
    (file,) = (folder / "dist").iterdir()
    return file


@pytest.fixture(scope="module")
def installation(wheel, tmp_path_factory):
    """A folder with the wheel's content; the packages that it depends on are those of this environment."""
    folder = tmp_path_factory.mktemp("installation")
    options = ["--no-deps", "--no-index", "--quiet", "--target", folder]
    result = run(sys.executable, "-m", "pip", "install", *options, wheel, cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="module")
def hyperrecon(installation, tmp_path_factory):
    """Runs the program `hyperrecon` of the installation in a folder of its own; has this folder as `cwd`."""
    cwd = tmp_path_factory.mktemp("user")

    def hyperrecon(*args):
        program = installation / "bin" / "hyperrecon"
        cache = {"HYPERRECON_JAX_CACHE": cwd / "cache", "JAX_NUM_CPU_DEVICES": 1}
        return run(sys.executable, program, *args, cwd=cwd, PYTHONPATH=installation, **cache)

    hyperrecon.cwd = cwd
    return hyperrecon


def test_the_wheel_holds_every_file_of_the_package_and_the_configs(wheel):
    package = {
        path for path in (ROOT / "hyperrecon_jax").rglob("*") if path.is_file() and path.parent.name != "__pycache__"
    }
    expected = {path.relative_to(ROOT).as_posix() for path in package}
    expected |= {f"hyperrecon_jax/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "configs").rglob("*.py")}
    assert {"hyperrecon_jax/configs/quickstart.py", "hyperrecon_jax/explorer/static/app.js"} <= expected
    assert expected == {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}


def test_the_metadata_name_licence_author_and_version(wheel):
    archive = zipfile.ZipFile(wheel)
    (info,) = {name.partition("/")[0] for name in archive.namelist() if ".dist-info/" in name}
    metadata = email.message_from_bytes(archive.read(f"{info}/METADATA"))
    assert metadata["Version"] == hyperrecon_jax.__version__
    assert metadata["Author"] == "The hyperrecon_jax authors"
    assert "Apache-2.0" in (metadata["License"], metadata["License-Expression"])
    assert {Path(name).name for name in metadata.get_all("License-File")} == {"LICENSE", "NOTICE"}
    assert (
        archive.read(next(name for name in archive.namelist() if name.endswith("/LICENSE")))
        == (ROOT / "LICENSE").read_bytes()
    )
    assert f"version: {hyperrecon_jax.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## [{hyperrecon_jax.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_it_is_imported_from_the_installation(hyperrecon, installation):
    code = "import hyperrecon_jax as hr; print(hr.__file__, hr.__version__, hr.coefficients.__name__)"
    result = run(sys.executable, "-c", code, cwd=hyperrecon.cwd, PYTHONPATH=installation)
    assert result.stdout.split() == [
        str(installation / "hyperrecon_jax" / "__init__.py"),
        hyperrecon_jax.__version__,
        "coefficients",
    ]


@pytest.mark.parametrize("name", ["", *cli.COMMANDS])
def test_every_command_has_its_help(name, hyperrecon):
    result = hyperrecon(*filter(None, [name]), "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert "    hyperrecon " in result.stdout
    assert "python -m" not in result.stdout


@pytest.mark.slow
def test_a_run_is_trained_and_exported_from_another_folder(hyperrecon):
    """A small one by the name of a config; what its last line proposes works, here without a server."""
    result = hyperrecon("train", "--config", "quickstart", *SMALL)
    assert result.returncode == 0, result.stderr
    summary = result.stdout.splitlines()[-1]
    assert summary.startswith("Next: hyperrecon explore --run runs/quickstart to move lambda and look; ")
    assert summary.endswith("hyperrecon train --config paper_csmri_supervised_4x --dry-run")
    assert (hyperrecon.cwd / "runs" / "quickstart" / "summary.json").exists()
    result = hyperrecon("explore", "--run", "runs/quickstart", "--export", "page.html", "--slices", "1")
    assert result.returncode == 0, result.stderr
    assert (hyperrecon.cwd / "page.html").stat().st_size > 10_000
    result = hyperrecon("train", "--config", "quickstart", "--dry-run", *SMALL)
    assert result.returncode == 0, result.stderr


def requirements():
    """The requirements of the package, and those of its tests and docs."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    texts = [
        settings["options"]["install_requires"],
        *(settings["options.extras_require"][name] for name in ("test", "docs")),
    ]
    lines = "\n".join(texts).splitlines()
    return [Requirement(line) for line in lines if line.strip() and not line.strip().startswith("#")]


def test_the_versions_of_ci_are_allowed():
    """Each direct dependency is pinned, at a version that setup.cfg allows."""
    lines = (ROOT / ".ci" / "constraints.txt").read_text().splitlines()
    pins = dict(re.fullmatch(r"(\S+)==(\S+)", line).groups() for line in lines if not line.startswith("#"))
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    for requirement in requirements():
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_extras_agree():
    """What the tests use of an optional feature is in the extra of that feature, too."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    extras = settings["options.extras_require"]
    tests = set(extras["test"].split("\n"))
    for name in ("dicom", "export", "multicoil"):
        assert set(filter(None, extras[name].split("\n"))) <= tests, name


def test_the_build_needs_setuptools_alone():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]
    assert [Requirement(text).name for text in build["requires"]] == ["setuptools"]
