"""The whole paper on next to nothing: trained, interrupted, resumed, judged and shown."""

import html.parser
import json
import re
import shutil

import numpy as np
import pytest
import xarray as xr

from hyperrecon_jax.commands import train
from hyperrecon_jax.evaluation import scores
from hyperrecon_jax.figures import style
from hyperrecon_jax.runs.config import complete
from hyperrecon_jax.runtime.errors import Diverged, InputError
from hyperrecon_jax.studies.paper import content, numbers, pages
from hyperrecon_jax.studies.paper.report import make_plan
from hyperrecon_jax.studies.paper.scale import Scale
from hyperrecon_jax.studies.paper.verdicts import judge
from hyperrecon_jax.studies.plan import EvaluationOptions, Piece
from hyperrecon_jax.studies.study import run_study

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_network")]
DATA = {"size": 16, "subjects": (2, 1, 1), "slices": 4}
SL = {"loss": {"terms": ("mae", "ssim")}, "model": {"width": 2, "hyper_width": 3}}
AO = {
    "loss": {
        "terms": ("data_consistency", "weight_l1", "total_variation"),
        "scales": (1.0, 1e-3, 1e-2),
        "ground_truth": False,
    },
    "model": {"width": 2, "hyper_width": 3},
    "dhs": {"keep": 2},
}
SEGMENT = {
    "task": {"name": "segmentation"},
    "loss": {"terms": ("soft_dice",), "scales": (1.0,)},
    "lam": {"sampling": "constant"},
    "model": {"width": 2, "hyper_width": 0, "residual": False},
}
UNETS = {"model.hyper_width": 0, "lam.sampling": "ensemble", "lam.axes": ((0.0, 1.0),)}
ON_GRID = EvaluationOptions(metrics=("psnr", "rpsnr"), points=3)
BROWSER = next(filter(None, map(shutil.which, pages.BROWSERS)), None)


@pytest.fixture(scope="module")
def scale(tmp_path_factory):
    shared = {"data": {**DATA, "cache": str(tmp_path_factory.mktemp("cache"))}, "train": {"steps": 2, "batch": 4}}
    sl, ao, segment = (complete(settings | shared) for settings in (SL, AO, SEGMENT))
    pieces = (
        Piece("segmenter", ("dice",), segment, {}),
        Piece("csmri-L", ("fig3", "fig6", "dice"), sl, {}, (EvaluationOptions(points=5, segmenter="segmenter"),)),
        Piece("csmri-unets", ("fig3", "fig6", "dice"), sl, UNETS, (EvaluationOptions(segmenter="segmenter"),)),
        Piece("ao-L-dhs-0", ("fig4", "fig7"), ao, {}, (ON_GRID, EvaluationOptions("diverse", ("psnr",), 4, 2))),
    )
    pieces = tuple(piece._replace(step_seconds=0.1, file="file.py") for piece in pieces)
    return Scale("tiny", "next to nothing", "nothing", pieces, rate=100.0, notes=("It is <tiny>.",))


@pytest.fixture(scope="module")
def study(scale, tmp_path_factory):
    """The folder of the study, which was interrupted once, and the lines that the user saw."""
    out, lines = tmp_path_factory.mktemp("study") / "out", []
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(style.PAPER, "savefig.dpi", 40)
        run, calls = train.train, []

        def interrupted(config, folder, **options):
            calls.append(folder.name)
            return False if len(calls) > 2 else run(config, folder, **options)

        patched.setattr(train, "train", interrupted)
        plan = make_plan(scale)
        assert not run_study(plan, out, say=lines.append)
        assert calls == ["segmenter", "csmri-L", "csmri-unets"]
        assert not (out / "report").exists()
        calls.clear()
        patched.setattr(train, "train", lambda *args, **options: calls.append(args[1].name) or run(*args, **options))
        lines.append("again")
        assert run_study(plan, out, say=lines.append)
        assert calls == ["csmri-unets", "ao-L-dhs-0"]  # what was finished is used again
        calls.clear()
        assert run_study(plan, out, say=lines.append)
        assert calls == []
    return out, lines


def test_the_plan_comes_first_and_says_what_is_finished(study):
    _, lines = study
    first, second = lines[0], lines[lines.index("again") + 1]
    assert first.count("nothing yet") == 4
    assert second.count("finished") == 2
    assert second.count("nothing yet") == 2


def test_the_numbers_are_those_of_the_runs(study):
    out, _ = study
    values = json.loads((out / "numbers.json").read_text())
    hyperrecon = scores.load(out / "csmri-L" / "evaluation" / "scores.nc")
    unets = scores.load(out / "csmri-unets" / "evaluation" / "scores.nc")
    gap = (hyperrecon["psnr"].sel(lam_1=[0.0, 1.0]) - unets["psnr"]).mean("image")
    np.testing.assert_allclose(values["supervised"]["csmri"]["metrics"]["psnr"]["gaps"], gap, rtol=1e-5, atol=1e-5)
    means = unets["mae"].mean("image")
    np.testing.assert_allclose(values["supervised"]["csmri"]["metrics"]["mae"]["unets"], means, rtol=1e-5)
    np.testing.assert_allclose(values["dice"]["csmri"]["values"], hyperrecon["dice"].mean("image"), rtol=1e-5)
    landscape = xr.load_dataset(out / "ao-L-dhs-0" / "evaluation" / "scores.nc", engine="scipy")["rpsnr"].mean("image")
    np.testing.assert_allclose(values["ao"]["dhs"]["L"], [np.sort(landscape.values.ravel())[-2:].mean()], rtol=1e-5)
    assert values["table"]["csmri-unets"]["members"] == 2
    assert len(values["pairs"][0]["psnr"]) == 2


class Page(html.parser.HTMLParser):
    """The parts of a page."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.images, self.text = set(), [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids |= {attrs["id"]} if "id" in attrs else set()
        self.links += [attrs["href"]] if tag == "a" else []
        self.images += [attrs["src"]] if tag == "img" else []

    def handle_data(self, data):
        self.text += data


def test_the_page_holds_everything_by_itself(study):
    out, _ = study
    page = Page((out / "report" / "index.html").read_text())
    assert len(page.images) >= 6
    assert all(image.startswith("data:image/png;base64,") for image in page.images)
    assert {link.removeprefix("#") for link in page.links} <= page.ids
    assert "It is <tiny>." in page.text
    for verdict in judge(json.loads((out / "numbers.json").read_text())):
        assert page.text.count(verdict.claim) >= 2  # in the table and with its figure
        assert verdict.number in page.text
        assert verdict.why in page.text
    assert "not tested at this scale" in page.text
    assert f"--workdir {out / 'csmri-unets'}" in page.text
    assert not list(out.rglob("*.partial"))


@pytest.mark.skipif(BROWSER is None, reason="no Chromium prints the PDF")
def test_the_pdf_is_printed_from_the_page(study):
    out, lines = study
    pdf = (out / "report" / "report.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert len(re.findall(rb"/Type /Page\b", pdf)) >= 8
    assert f"and as {out / 'report' / 'report.pdf'}; the numbers" in lines[-1]


def test_without_a_browser_there_is_no_pdf(scale, tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "BROWSERS", ("no-such-browser",))
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / "report.pdf").write_text("of an earlier report")
    text = content.make_content(scale, tmp_path, numbers.gather(scale, tmp_path))
    assert not any(text["pictures"].values())
    assert pages.tally(text["verdicts"]).endswith(" 20 not tested at this scale")  # all but the two that count parameters
    assert pages.write(text, folder) == (folder / "index.html", None)
    assert [path.name for path in folder.iterdir()] == ["index.html"]


def test_only_does_what_a_figure_needs_and_the_report_says_what_is_missing(study, scale, tmp_path, monkeypatch):
    out, calls = tmp_path / "out", []
    shutil.copytree(study[0] / "ao-L-dhs-0", out / "ao-L-dhs-0")
    monkeypatch.setattr(train, "train", lambda config, folder, **options: calls.append(folder.name))
    monkeypatch.setattr(pages, "BROWSERS", ())
    lines, plan = [], make_plan(scale)
    assert run_study(plan, out, only=["fig7"], say=lines.append)
    assert calls == []
    assert {path.name for path in out.iterdir()} == {"ao-L-dhs-0", "figures", "numbers.json", "report"}
    assert "without a PDF: no Chromium here could print the page" in lines[-1]
    assert "Its runs are not there yet." in Page((out / "report" / "index.html").read_text()).text
    assert not run_study(plan, out, only=["dice", "fig7"], say=lambda _: None)
    assert calls == ["segmenter"]
    with pytest.raises(InputError, match="--only must be among"):
        run_study(plan, tmp_path / "other", only=["fig8"])
    assert not (tmp_path / "other").exists()


def test_a_training_that_diverges_is_reported_and_the_others_go_on(scale, tmp_path, monkeypatch):
    calls = []

    def diverging(config, folder, **options):
        calls.append(folder.name)
        if folder.name == "csmri-L":
            raise Diverged("NaN at step 1.")
        return True

    monkeypatch.setattr(train, "train", diverging)
    monkeypatch.setattr(pages, "BROWSERS", ())
    pieces = (scale.pieces[1], scale.pieces[0])
    with pytest.raises(Diverged, match="csmri-L: NaN at step 1."):
        run_study(make_plan(scale._replace(pieces=pieces)), tmp_path, say=lambda _: None)
    assert calls == ["csmri-L", "segmenter"]
    assert "This went wrong: csmri-L: NaN at step 1." in Page((tmp_path / "report" / "index.html").read_text()).text
