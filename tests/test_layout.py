"""The layout: imports point down only, libraries stay in their folders, and commands hold flags alone."""

import ast
import graphlib
from pathlib import Path

import pytest

from hyperrecon_jax import cli

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hyperrecon_jax"

# From the bottom up. A folder imports from those above it in this list, and from itself without circles.
FOLDERS = [
    "runtime",
    "physics",
    "models",
    "data",
    "losses",
    "training",
    "evaluation",
    "figures",
    "runs",
    "commands",
    "explorer",
    "benchmarks",
    "studies",
    "cli",
]
LIBRARIES = {
    "flax": {"models"},
    "ml_collections": {"runs", "commands", "studies", "cli"},
    "orbax": {"runs", "runtime"},
    "matplotlib": {"figures"},
}
MODULES = sorted(PACKAGE.rglob("*.py"))
CLI_LINES = 120  # of a file in cli: flags, checks of them, and one call


def name_of(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


NAMES = {name_of(path) for path in MODULES}


def imported(path):
    """Names of all modules that a file imports, anywhere in it; our own without the name of the package."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [name if name.removeprefix("hyperrecon_jax.") in NAMES else node.module for name in names]
        else:
            continue
        yield from (module.removeprefix("hyperrecon_jax.") for module in modules)


@pytest.mark.parametrize("path", [path for path in MODULES if path.parent != PACKAGE], ids=name_of)
def test_imports_point_down(path):
    folder = name_of(path).split(".")[0]
    others = {module.split(".")[0] for module in imported(path) if module in NAMES} - {folder}
    allowed = set(FOLDERS[: FOLDERS.index(folder)])
    assert others <= allowed, f"{folder} must not import {', '.join(others - allowed)}"


def test_no_circles():
    graph = {name_of(path): [module for module in imported(path) if module in NAMES] for path in MODULES}
    list(graphlib.TopologicalSorter(graph).static_order())


def test_libraries_stay_in_their_folders():
    for path in MODULES:
        for module in imported(path):
            folders = LIBRARIES.get(module.split(".")[0])
            assert folders is None or name_of(path).split(".")[0] in folders, f"{path} imports {module}"


def test_no_import_by_a_string():
    for path in MODULES:
        assert "import_module" not in path.read_text(), path


def test_commands_hold_flags_alone():
    for path in (PACKAGE / "cli").glob("*.py"):
        assert len(path.read_text().splitlines()) <= CLI_LINES, path
    for name in cli.COMMANDS:
        text = (ROOT / "bin" / f"{name}.py").read_text()
        assert len(text.splitlines()) == 6, name
        assert f"from hyperrecon_jax.cli.{name} import main" in text
    assert {path.stem for path in (ROOT / "bin").glob("*.py")} == {"__init__", *cli.COMMANDS}
