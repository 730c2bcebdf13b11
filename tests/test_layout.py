"""The house: imports point down only, and commands hold flags alone."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hyperrecon_jax"

# From the ground up. A module imports from the floors below its own.
FLOORS = [
    ["errors", "memory", "files", "sample"],
    [
        "machine",
        "conv",
        "conv_pallas",
        "operators",
        "masks",
        "hyperparams",
        "losses",
        "tensor_files",
        "volumes.stack",
        "data.dataset",
    ],
    ["metrics", "hosts", "unet", "hypernet", "problem", "volumes.arrays", "volumes.dicom", "volumes.fastmri"],
    ["model", "volumes.formats", "data.sources.grid", "data.sources.subject", "data.sources.coils"],
    ["objective", "choose", "interop", "signals", "volumes.reading"],
    [
        "gradient",
        "export",
        "volumes.writing",
        "data.template",
        "data.mni152",
        "data.feed",
        "data.sources.image_files",
        "data.sources.fastmri_file",
    ],
    ["volumes", "data.population", "data.mni152.remake", "data.sources.fastmri_kspace"],
    ["data.sources.abide", "data.sources.series", "data.sources.fastmri"],
    ["data.sources.folder"],
    ["data.sources"],
    ["data.preparation"],
    ["data.builder"],
    ["data.prepared", "data.array_files"],
    ["data.from_files"],
    ["data"],
    ["figures.style", "figures.crops"],
    ["figures.curves", "figures.images", "figures.maps", "figures.overview"],
    ["mesh"],
    ["train", "figures", "logs", "scores", "diverse"],
    ["scales", "evaluate", "loop", "bench.floor"],
    ["checkpoint", "config_check", "names", "bench.timing", "bench.peer"],
    ["config", "bench.networks"],
    ["bench.naive", "bench.steps", "bench.landscape", "bench.feed", "bench.startup", "bench.against_peer"],
    ["bench.convolutions"],
    ["bench"],
    ["experiment"],
    ["report", "trained"],
    ["run", "evaluation_pictures"],
    ["dhs_study", "evaluate_run", "export_run", "prepare"],
    ["compare", "choose_run"],
    ["baseline_study", "explorer.measurement"],
    ["explorer.shelf", "improvement_study"],
    ["explorer.engine"],
    ["explorer.server"],
    ["explorer.page"],
    ["explorer"],
    ["reproduce.plan", "reproduce.look", "reproduce.papers"],
    ["reproduce.numbers", "reproduce.sizes"],
    ["reproduce.criteria"],
    ["reproduce.claims"],
    ["reproduce.content"],
    ["reproduce.pages"],
    ["reproduce"],
]
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}
MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def imported(path):
    """Names of our own modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "hyperrecon_jax":
            base = node.module.removeprefix("hyperrecon_jax").lstrip(".")
            for alias in node.names:
                whole = f"{base}.{alias.name}".lstrip(".")
                yield whole if whole in FLOOR else base
        elif isinstance(node, ast.Import):
            yield from (a.name.removeprefix("hyperrecon_jax.") for a in node.names if a.name.startswith("hyperrecon_jax."))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_down(path):
    name = name_of(path)
    if name == "__init__":
        return
    assert name in FLOOR, f"{name} has no floor yet: give it one in FLOORS"
    for other in imported(path):
        assert FLOOR[other] < FLOOR[name], f"{name} must not import {other}"


def test_flax_and_configdict_stay_in_their_rooms():
    allowed = {
        "flax": {"unet", "hypernet", "model"},
        "ml_collections": {
            "config",
            "config_check",
            "experiment",
            "report",
            "run",
            "baseline_study",
            "dhs_study",
            "improvement_study",
            "prepare",
            "reproduce.plan",
        },
    }
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [node.module] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for module in filter(None, modules):
                rooms = allowed.get(module.split(".")[0])
                assert rooms is None or name_of(path) in rooms, f"{path.name} imports {module}"


def test_commands_are_short():
    for path in (ROOT / "bin").glob("*.py"):
        assert len(path.read_text().splitlines()) < 80, path.name
