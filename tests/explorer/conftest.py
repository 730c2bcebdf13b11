"""What the tests of the explorer's page start: a browser, and the servers of two runs that have all controls."""

import pytest
from helper import explorable_config, small_networks, train_explorable

from tests.explorer.chromium import CHROMIUM, FLAGS


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def serve_evaluated(config, folder, points):
    """The page of a run that was evaluated, so that it draws a landscape."""
    from hyperrecon_jax.commands import train
    from hyperrecon_jax.commands.evaluate import evaluate
    from hyperrecon_jax.explorer.page import widget

    with small_networks():
        train.train(config, folder / "run", say=lambda _: None)
        evaluate(folder / "run", folder / "run" / "evaluation", points=points, say=lambda _: None)
        shown = widget(folder / "run")
        yield shown.address
        shown.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The page of a run with one lambda and a range of acquisitions."""
    folder = tmp_path_factory.mktemp("one")
    task = {"acceleration": (2.0, 8.0), "sigma": (0.0, 0.1), "mask": ("poisson_disc", "random_lines")}
    yield from serve_evaluated(explorable_config(folder, task=task), folder, points=5)


@pytest.fixture(scope="module")
def pad_address(tmp_path_factory):
    """The page of a run with two lambdas."""
    from hyperrecon_jax.runs.config import complete

    folder = tmp_path_factory.mktemp("two")
    settings = explorable_config(folder).to_dict()
    settings["loss"] = {"terms": ("data_consistency", "total_variation", "mae"), "scales": (1.0, 1.0, 1.0)}
    yield from serve_evaluated(complete(settings), folder, points=4)


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """The widget of a run without noise, whose network is hardly trained, so that its results are bad."""
    from hyperrecon_jax.explorer.page import widget

    with small_networks():
        shown = widget(train_explorable(tmp_path_factory.mktemp("runs")) / "run")
        yield shown
        shown.close()


@pytest.fixture(scope="module")
def pretrained():
    from hyperrecon_jax.explorer.engine import Engine
    from hyperrecon_jax.runs.slim_run import PRETRAINED_FOLDER

    return Engine(PRETRAINED_FOLDER)


@pytest.fixture(scope="module")
def page_file(pretrained, tmp_path_factory):
    """The page of the model of the package."""
    from hyperrecon_jax.explorer import export

    return export(pretrained, tmp_path_factory.mktemp("page") / "page.html")
