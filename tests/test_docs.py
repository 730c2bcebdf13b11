"""The pages keep their word: their Python runs, block after block, and the files that they name exist."""

import json
import re
from pathlib import Path

import jax
import matplotlib
import matplotlib.pyplot as plt
import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
SHORT = {
    "SIZE, STEPS = 32, 300": "SIZE, STEPS = 32, 2",
    "SIZE, SUBJECTS, STEPS = 64, (24, 1, 2), 600": "SIZE, SUBJECTS, STEPS = 16, (2, 1, 1), 2",
}


def shortened(code):
    """What takes a minute to read may take a minute to run; a test needs neither."""
    for long, short in SHORT.items():
        code = code.replace(long, short)
    return code


@pytest.fixture
def code_of_users():
    """Code that readers write need not keep to our rule about ranks."""
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.usefixtures("code_of_users")
@pytest.mark.parametrize("page", [DOCS / "guides" / "your_network.md"], ids=lambda path: path.stem)
def test_the_python_of_a_page_runs(page, capsys):
    namespace = {}
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE):
        exec(compile(shortened(block), page.name, "exec"), namespace)
    assert "(2, 5, 1)" in capsys.readouterr().out


@pytest.mark.usefixtures("code_of_users")
def test_the_tour_runs(monkeypatch, tmp_path, capsys):
    pictures = []
    monkeypatch.setenv("HYPERRECON_JAX_CACHE", str(tmp_path))
    monkeypatch.setattr(plt, "show", lambda: (pictures.append(1), plt.close()))
    matplotlib.use("Agg")
    namespace = {}
    for cell in json.loads((DOCS / "tour.ipynb").read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec(compile(shortened("".join(cell["source"])), "tour.ipynb", "exec"), namespace)
            assert cell["outputs"] or "print" not in "".join(cell["source"]), "run it before it is committed"
    assert len(pictures) == 4
    assert "parameters generate a U-Net" in capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_what_a_page_names_is_there(page):
    for target in re.findall(r"\]\(((?!https?:)[^)#]+)", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)):
        assert (page.parent / target).exists(), target


def test_every_page_has_a_place_in_the_site():
    nav = (DOCS.parent / "mkdocs.yml").read_text()
    for page in PAGES:
        assert str(page.relative_to(DOCS)) in nav, page
