"""The documentation is right: its Python runs, its commands have these flags, its links and module paths exist."""

import itertools
import json
import re
import shlex

import jax
import matplotlib
import matplotlib.pyplot as plt
import pytest
from helper import ROOT

from hyperrecon_jax.runs.config import check_key

DOCS = ROOT / "docs"
PACKAGE = ROOT / "hyperrecon_jax"
COMMAND_FOLDERS = (ROOT / "bin", PACKAGE / "cli")
PAGES = sorted(DOCS.rglob("*.md"))
GUIDE_FOR_DEVELOPERS = ROOT / "CONTRIBUTING.md"
TEXTS = [ROOT / "README.md", *PAGES, DOCS / "tour.ipynb"]
CODE_PAGES = {  # the pages whose Python runs from top to bottom, and what it prints
    DOCS / "guides" / "functions.md": "(100, 64, 64, 1)",
    DOCS / "guides" / "your_network.md": "(2, 5, 1)",
}
SHORT = {
    "SIZE, STEPS = 32, 300": "SIZE, STEPS = 32, 2",
    "SIZE, SUBJECTS, STEPS = 64, (24, 1, 2), 600": "SIZE, SUBJECTS, STEPS = 16, (2, 1, 1), 2",
}


def shorten(code):
    """The code with fewer steps and smaller images: a test only needs to see that it runs."""
    for long, short in SHORT.items():
        code = code.replace(long, short)
    return code


def remove_code_blocks(page):
    return re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL).replace("M[H(λ)](y)", "")


def read_text(path):
    """The text of a page, or of the cells of a notebook."""
    if path.suffix == ".ipynb":
        return "\n".join("".join(cell["source"]) for cell in json.loads(path.read_text())["cells"])
    return path.read_text()


def find_commands(path):
    """The command lines of this package on a page: `[(name, [argument, ...]), ...]`."""
    text = read_text(path).replace("\\\n", " ")
    lines = re.findall(r"(?:python -m bin\.|hyperrecon (?=[a-z]+ --))([a-z_]+)([^\n`]*)", text)
    return [(name, shlex.split(arguments.partition(" && ")[0].rstrip('"'), comments=True)) for name, arguments in lines]


def defined_flags(name):
    """The flags that the source of a command defines."""
    source = "".join(path.read_text() for folder in COMMAND_FOLDERS for path in folder.glob(f"{name}.py"))
    assert source, f"no command {name}"
    shared = {"coordinator", "processes", "process"} if "adopt_module_key_flags" in source else set()
    return {*re.findall(r"DEFINE_\w+\(\s*\"([\w-]+)\"", source), *shared, "help"}


@pytest.fixture
def code_of_users():
    """Readers may write code that breaks our own rule about ranks."""
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("code_of_users")
@pytest.mark.parametrize("page", CODE_PAGES, ids=lambda path: path.stem)
def test_the_python_of_a_page_runs(page, capsys):
    namespace = {}
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE):
        exec(compile(shorten(block), page.name, "exec"), namespace)
    assert CODE_PAGES[page] in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("code_of_users")
def test_the_tour_runs(monkeypatch, tmp_path, capsys):
    pictures = []
    monkeypatch.setenv("HYPERRECON_JAX_CACHE", str(tmp_path))
    monkeypatch.setattr(plt, "show", lambda: (pictures.append(1), plt.close()))
    matplotlib.use("Agg")
    namespace = {}
    for cell in json.loads((DOCS / "tour.ipynb").read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec(compile(shorten("".join(cell["source"])), "tour.ipynb", "exec"), namespace)
            assert cell["outputs"] or "print" not in "".join(cell["source"]), "run it before it is committed"
    assert len(pictures) == 4
    assert "parameters generate a U-Net" in capsys.readouterr().out


@pytest.mark.parametrize("page", [*PAGES, GUIDE_FOR_DEVELOPERS], ids=lambda path: path.stem)
def test_links_of_a_page_exist(page):
    for target in re.findall(r"\]\(((?!https?:)[^)#]+)", remove_code_blocks(page)):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", [ROOT / "README.md", GUIDE_FOR_DEVELOPERS, *PAGES], ids=lambda path: path.stem)
def test_modules_and_configs_of_a_page_exist(page):
    text = remove_code_blocks(page)
    for name in re.findall(r"`((?:\w+/)+\w+\.py)`", text):
        assert (PACKAGE / name).exists() or (ROOT / name).exists(), name
    for name in re.findall(r"configs/[\w/]+\.py\b", text):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"`config\.([\w.]+)", text):
        check_key(name)


def test_every_page_has_a_place_in_the_site():
    nav = (ROOT / "mkdocs.yml").read_text()
    for page in PAGES:
        assert str(page.relative_to(DOCS)) in nav, page


def test_every_config_is_listed():
    guide = (DOCS / "guides" / "train.md").read_text()
    for path in (ROOT / "configs").glob("*.py"):
        assert f"`{path.name}`" in guide, path.name


@pytest.mark.parametrize("page", TEXTS, ids=lambda path: path.stem)
def test_commands_of_a_page_have_these_flags(page):
    """Each command exists and defines its flags; its settings exist, and the files of its configs."""
    for name, arguments in find_commands(page):
        flags = defined_flags(name)
        for argument, following in itertools.pairwise([*arguments, ""]):
            if not argument.startswith("--"):
                continue
            flag, _, value = argument.removeprefix("--").partition("=")
            flag, _, key = flag.partition(".")
            assert flag in flags, f"{name} {argument}"
            if key:
                check_key(key)
            elif flag in ("config", "plan"):
                file = (value or following).partition(":")[0]
                assert (ROOT / file).exists() or (ROOT / "configs" / f"{file}.py").exists(), file


def test_commands_are_seen():
    """The search above sees the commands of the pages, those in a second line included."""
    seen = [command for page in TEXTS for command in find_commands(page)]
    assert {"train", "evaluate", "choose", "explore", "export", "prepare", "bench"} <= {name for name, _ in seen}
    assert len(seen) > 60
    assert any("--workdir" in arguments[-2:] for name, arguments in seen if name == "train")
