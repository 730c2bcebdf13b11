"""The whole of it on next to nothing: trained, interrupted, gone on with, judged and shown."""

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
from hyperrecon_jax.runtime.errors import Diverged, InputError
from hyperrecon_jax.studies import paper
from hyperrecon_jax.studies.paper import claims, content, numbers, pages
from hyperrecon_jax.studies.paper.plan import Evaluation, Piece, Scale

pytestmark = pytest.mark.usefixtures("small_network")
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
UNETS = {"model.hyper_width": 0, "lam.sampling": "ensemble"}
GRID = Evaluation(metrics=("psnr", "rpsnr"), points=3)
SCALE = Scale(
    "tiny",
    "next to nothing",
    "nothing",
    (
        Piece("segmenter", ("dice",), "segment.py", {}, 0.1),
        Piece("csmri-L", ("fig3", "fig6", "dice"), "sl.py", {}, 0.1, (Evaluation(points=5, dice=True),)),
        Piece(
            "csmri-unets",
            ("fig3", "fig6", "dice"),
            "sl.py",
            {**UNETS, "lam.axes": ((0.0, 1.0),)},
            0.1,
            (Evaluation(dice=True),),
        ),
        Piece("ao-L-dhs-0", ("fig4", "fig7"), "ao.py", {}, 0.1, (GRID, Evaluation("diverse", ("psnr",), 4, 2))),
    ),
    rate=100.0,
    notes=("It is <tiny>.",),
)


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("configs")
    shared = {"data": {**DATA, "cache": str(folder / "cache")}, "train": {"steps": 2, "batch": 4}}
    for name, settings in (("sl", SL), ("ao", AO), ("segment", SEGMENT)):
        text = (
            f"from hyperrecon_jax.config import complete\ndef get_config():\n    return complete({settings | shared!r})\n"
        )
        (folder / f"{name}.py").write_text(text)
    return folder


@pytest.fixture(scope="module")
def made(configs, tmp_path_factory):
    """The folder of the whole, which was interrupted once, and what was said."""
    out, said = tmp_path_factory.mktemp("made") / "out", []
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(style.PAPER, "savefig.dpi", 40)
        whole, calls = train.train, []

        def interrupted(config, folder, **options):
            calls.append(folder.name)
            return False if len(calls) > 2 else whole(config, folder, **options)

        patched.setattr(train, "run", interrupted)
        assert not paper.reproduce(SCALE, out, configs=configs, say=said.append)
        assert calls == ["segmenter", "csmri-L", "csmri-unets"]
        assert not (out / "report").exists()
        calls.clear()
        patched.setattr(train, "run", lambda *args, **options: calls.append(args[1].name) or whole(*args, **options))
        said.append("again")
        assert paper.reproduce(SCALE, out, configs=configs, say=said.append)
        assert calls == ["csmri-unets", "ao-L-dhs-0"]  # what was finished is used again
        calls.clear()
        assert paper.reproduce(SCALE, out, configs=configs, say=said.append)
        assert calls == []
    return out, said


def test_the_plan_comes_first_and_knows_what_is_there(made):
    _, said = made
    first, second = said[0], said[said.index("again") + 1]
    assert first.count("nothing yet") == 4
    assert second.count("finished") == 2
    assert second.count("nothing yet") == 2


def test_the_numbers_are_those_of_the_runs(made):
    out, _ = made
    found = json.loads((out / "numbers.json").read_text())
    ours = scores.load(out / "csmri-L" / "evaluation" / "scores.nc")
    theirs = scores.load(out / "csmri-unets" / "evaluation" / "scores.nc")
    gap = (ours["psnr"].sel(lam_1=[0.0, 1.0]) - theirs["psnr"]).mean("image")
    np.testing.assert_allclose(found["supervised"]["csmri"]["metrics"]["psnr"]["gaps"], gap, rtol=1e-5, atol=1e-5)
    unets = theirs["mae"].mean("image")
    np.testing.assert_allclose(found["supervised"]["csmri"]["metrics"]["mae"]["unets"], unets, rtol=1e-5)
    np.testing.assert_allclose(found["dice"]["csmri"]["values"], ours["dice"].mean("image"), rtol=1e-5)
    landscape = xr.load_dataset(out / "ao-L-dhs-0" / "evaluation" / "scores.nc", engine="scipy")["rpsnr"].mean("image")
    np.testing.assert_allclose(found["ao"]["dhs"]["L"], [np.sort(landscape.values.ravel())[-2:].mean()], rtol=1e-5)
    assert found["table"]["csmri-unets"]["members"] == 2
    assert len(found["pairs"][0]["psnr"]) == 2


class Page(html.parser.HTMLParser):
    """What stands in a page."""

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


def test_the_page_holds_everything_by_itself(made):
    out, _ = made
    page = Page((out / "report" / "index.html").read_text())
    assert len(page.images) >= 6
    assert all(image.startswith("data:image/png;base64,") for image in page.images)
    assert {link.removeprefix("#") for link in page.links} <= page.ids
    assert "It is <tiny>." in page.text
    for verdict in claims.verdicts(json.loads((out / "numbers.json").read_text())):
        assert page.text.count(verdict.claim) >= 2  # in the table and with its figure
        assert verdict.number in page.text
        assert verdict.why in page.text
    assert "not tested at this scale" in page.text
    assert f"--workdir {out / 'csmri-unets'}" in page.text
    pdf = (out / "report" / "report.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert len(re.findall(rb"/Type /Page\b", pdf)) >= 8
    assert not list(out.rglob("*.partial"))


def test_only_does_what_a_figure_needs_and_the_report_says_what_is_missing(made, configs, tmp_path, monkeypatch):
    out, calls = tmp_path / "out", []
    shutil.copytree(made[0] / "ao-L-dhs-0", out / "ao-L-dhs-0")
    monkeypatch.setattr(train, "run", lambda config, folder, **options: calls.append(folder.name))
    assert paper.reproduce(SCALE, out, configs=configs, only=["fig7"], say=lambda _: None)
    assert calls == []
    assert {path.name for path in out.iterdir()} == {"ao-L-dhs-0", "figures", "numbers.json", "report"}
    assert "Its runs are not there yet." in Page((out / "report" / "index.html").read_text()).text
    assert not paper.reproduce(SCALE, out, configs=configs, only=["dice", "fig7"], say=lambda _: None)
    assert calls == ["segmenter"]
    with pytest.raises(InputError, match="--only must be among"):
        paper.reproduce(SCALE, tmp_path / "other", configs=configs, only=["fig8"])
    assert not (tmp_path / "other").exists()


def test_a_training_that_diverges_is_told_of_and_the_others_go_on(configs, tmp_path, monkeypatch):
    calls = []

    def diverging(config, folder, **options):
        calls.append(folder.name)
        if folder.name == "csmri-L":
            raise Diverged("NaN at step 1.")
        return True

    monkeypatch.setattr(train, "run", diverging)
    pieces = (SCALE.pieces[1], SCALE.pieces[0])
    with pytest.raises(Diverged, match="csmri-L: NaN at step 1."):
        paper.reproduce(SCALE._replace(pieces=pieces), tmp_path, configs=configs, say=lambda _: None)
    assert calls == ["csmri-L", "segmenter"]
    assert "This went wrong: csmri-L: NaN at step 1." in Page((tmp_path / "report" / "index.html").read_text()).text


def test_a_report_of_nothing_can_be_made(tmp_path):
    found = numbers.gather(SCALE, tmp_path)
    report = content.make(SCALE, tmp_path, found)
    assert not any(section.pictures for section in report.sections)
    assert pages.tally(report).endswith(" 20 not tested at this scale")  # all but the two that count parameters
    pages.write(report, tmp_path / "report")
