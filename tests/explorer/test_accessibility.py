"""The page for everybody: the rules of axe-core in each state and theme, contrasts, keys, motion, explanations."""

import re

import numpy as np
import pytest

from tests.explorer.chromium import EXACT, answer_diverse, needs_chromium, npy_file, opened

pytestmark = [pytest.mark.slow, needs_chromium]


def violations(page):
    """What axe-core finds, a line for each rule with the elements."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    response = axe.run(page, options={"runOnly": {"type": "tag", "values": tags}}).response
    assert len(response["passes"]) > 15
    return [f"{rule['id']}: {[node['target'] for node in rule['nodes']]}" for rule in response["violations"]]


def compare(mode):
    def show(page):
        page.click(f"#mode-{mode}")
        page.wait_for_selector(f"#mode-{mode}[aria-pressed=true]")

    return show


def show_profile(page):
    page.evaluate("() => { explorer.state.profile = [[0.1, 0.1], [0.9, 0.8]]; }")
    page.click("#tool-profile")
    page.wait_for_selector("#profile-plot polyline", state="attached")


def show_explanations(page):
    page.click("#lambda .term")
    page.click("th .term >> nth=-1")
    page.wait_for_selector("#metric-hint:has-text('J')")


def show_messages(page):
    page.evaluate("() => { Messages.toast('It is saved.'); Messages.toast('Reading …', 'busy'); }")
    page.evaluate("() => { Messages.error(new Error('It is broken.')); Messages.banner('The server does not answer.'); }")


def show_good_ones(page):
    answer_diverse(page)
    page.click("#diverse")
    page.wait_for_selector("#diverse-list button >> nth=5")


def show_own_volume(page):
    page.check("#kind-kspace")
    kspace = np.fft.fftshift(np.fft.fft2(np.random.default_rng(0).random((1, 16, 16))), axes=(1, 2))
    kspace[..., ::2] = 0
    page.set_input_files("#file", npy_file("own.npy", kspace))
    page.wait_for_selector("#no-truth")
    page.wait_for_selector("#toasts li:has-text('own.npy')")


STATES = {
    "start": lambda page: None,
    "A and B": compare("side"),
    "flicker": compare("flicker"),
    "difference": compare("difference"),
    "error": compare("error"),
    "profile": show_profile,
    "explanations": show_explanations,
    "messages": show_messages,
    "good ones": show_good_ones,
    "own volume": show_own_volume,
    "dropping": lambda page: page.evaluate("() => { document.querySelector('#drop').hidden = false; }"),
    "help": lambda page: page.evaluate("() => { drop.hidden = true; document.querySelector('#help').showModal(); }"),
}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 800), (390, 844)], ids=["desktop", "phone"])
def test_axe_finds_nothing(browser, address, size, theme):
    """A phone has the same parts: only the states with the most text are looked at in it."""
    states = STATES if size[0] > 1000 else ("start", "profile", "messages")
    with opened(browser, address, size=size, color_scheme=theme, reduced_motion="reduce") as page:
        problems = []
        for state in states:
            STATES[state](page)
            problems += [f"{state}: {line}" for line in violations(page)]
        assert not problems, "\n".join(problems)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_on_the_pad(browser, pad_address, theme):
    with opened(browser, pad_address, size=(1280, 800), color_scheme=theme) as page:
        assert violations(page) == []


def luminance(color):
    """The relative luminance of WCAG of an opaque colour such as "rgb(1, 2, 3)"."""
    channels = np.array(re.findall(r"[\d.]+", color)[:3], float) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(color, background):
    high, low = sorted((luminance(color), luminance(background)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_formula_of_contrast():
    assert contrast("rgb(255, 255, 255)", "rgb(0, 0, 0)") == pytest.approx(21)
    assert contrast("rgb(119, 119, 119)", "rgb(255, 255, 255)") == pytest.approx(4.48, abs=0.01)  # #777 on white


BORDERS = """() => {
    const behind = (e) => {
        for (let at = e.parentElement; at; at = at.parentElement) {
            const color = getComputedStyle(at).backgroundColor;
            if (color !== "rgba(0, 0, 0, 0)") return color;
        }
    };
    const controls = [...document.querySelectorAll("button, .button, select, input[type=number], input[type=text]")];
    const isShown = (e) => e.checkVisibility() && !e.disabled && getComputedStyle(e).borderTopWidth !== "0px";
    const shown = controls.filter(isShown);
    const borders = shown.map((e) => [e.id || e.textContent, getComputedStyle(e).borderTopColor, behind(e)]);
    const probe = document.createElement("i");
    document.querySelector("#lambda").append(probe);
    const resolve = (name) => ((probe.style.color = `var(${name})`), getComputedStyle(probe).color);
    const tracks = ["--border", "--a", "--b", "--pressed"].map((name) => [name, resolve(name), behind(probe)]);
    const focus = [["focus", resolve("--focus"), resolve("--panel")], ["focus", resolve("--focus"), resolve("--page")]];
    probe.remove();
    return [...borders, ...tracks, ...focus];
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_borders_of_controls_and_tracks_have_contrast(browser, address, theme):
    """3 : 1 against what is behind; the tracks and handles of sliders have the colours of `tracks`."""
    with opened(browser, address, color_scheme=theme) as page:
        rows = page.evaluate(BORDERS)
        assert len(rows) > 25
        weak = {name: round(contrast(color, behind), 2) for name, color, behind in rows if contrast(color, behind) < 3}
        assert weak == {}


def test_the_system_decides_on_the_theme_and_images_stay_on_black(browser, address):
    backgrounds = {}
    for theme in ("light", "dark"):
        with opened(browser, address, color_scheme=theme) as page:
            backgrounds[theme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert page.eval_on_selector("#view-main", "e => getComputedStyle(e).backgroundColor") == "rgb(0, 0, 0)"
    assert luminance(backgrounds["light"]) > 0.7
    assert luminance(backgrounds["dark"]) < 0.02


def test_forced_colors_keep_what_is_pressed_and_the_images(browser, address):
    with opened(browser, address, forced_colors="active") as page:
        pressed, released = (
            page.eval_on_selector(f"#mode-{mode}", "e => getComputedStyle(e).backgroundColor")
            for mode in ("single", "side")
        )
        assert pressed != released
        for view in ("view-main", "view-input"):
            colors = page.eval_on_selector(
                f"#{view} canvas", "c => new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size"
            )
            assert colors > 10  # the image is drawn as ever


def test_nothing_moves_by_itself_if_the_system_says_so(browser, address):
    for motion, name in (("reduce", "none"), ("no-preference", "turn")):
        with opened(browser, address, reduced_motion=motion) as page:
            page.evaluate("Messages.banner('The server does not answer.')")
            assert page.eval_on_selector("#banner .spinner", "e => getComputedStyle(e).animationName") == name


def test_keys_of_one_character_can_be_switched_off_for_good(browser, address):
    with opened(browser, address) as page:
        page.keyboard.press("2")
        page.wait_for_selector("#mode-side[aria-pressed=true]")
        page.keyboard.press("?")
        page.uncheck("#single-keys")
        page.click("#help-close")
        page.keyboard.press("1")
        page.keyboard.press("+")
        page.keyboard.press("ArrowRight")  # no character: it still acts
        page.wait_for_function("() => explorer.state.lam.A[0] === 0.51")
        assert page.evaluate("[explorer.state.mode, explorer.state.zoom]") == ["side", 1]
        page.reload()
        page.wait_for_selector(EXACT)
        page.keyboard.press("?")
        assert not page.is_visible("#help")
        page.click("#help-button")
        assert not page.is_checked("#single-keys")
        page.check("#single-keys")
        page.click("#help-close")
        page.keyboard.press("1")
        page.wait_for_selector("#mode-single[aria-pressed=true]")


def test_space_presses_the_control_that_has_the_focus(browser, address):
    """In flicker it changes over anywhere else, on the slider of lambda, too."""
    with opened(browser, address) as page:
        page.focus("#mode-flicker")
        page.keyboard.press("Space")
        page.wait_for_selector("#mode-flicker[aria-pressed=true]")
        page.focus("#smooth")
        page.keyboard.press("Space")
        assert page.is_checked("#smooth")
        page.focus("#mode-single")
        page.keyboard.press("Space")
        page.wait_for_selector("#mode-single[aria-pressed=true]")
        assert page.evaluate("explorer.state.flicker") == "A"
        page.click("#mode-flicker")  # with the mouse: the keys are the page's again
        page.keyboard.press("Space")
        page.wait_for_selector("#view-main[data-shows=B]")
        page.focus("#lambda-slider-1")
        page.keyboard.press("Space")
        page.wait_for_selector("#view-main[data-shows=A]")


@pytest.mark.parametrize("way", ["keyboard", "touch"])
def test_what_lambda_and_the_metrics_are_is_said_where_they_stand(browser, address, way):
    with opened(browser, address, size=(390, 844), has_touch=True) as page:

        def press(selector):
            if way == "touch":
                page.tap(selector)
            else:
                page.focus(selector)
                page.keyboard.press("Enter")

        assert "Drag" in page.inner_text("#lambda-drag")
        press("#lambda .term")
        assert "MAE" in page.inner_text("#lambda-hint")
        press("#lambda .term")
        assert not page.is_visible("#lambda-hint")
        for metric, words in (("hfen", "edges"), ("data_consistency", "measurement")):
            press(f"tr[data-row={metric}] .term")
            assert words in page.inner_text("#metric-hint")
            assert page.locator("th .term[aria-expanded=true]").count() == 1
        if way == "keyboard":  # the table is filled anew while lambda moves: the focus stays
            page.keyboard.press("ArrowRight")
            page.wait_for_selector(f"{EXACT}[data-lam='0.510']")
            assert page.evaluate("document.activeElement.closest('tr').dataset.row") == "data_consistency"


def test_messages_are_announced(browser, address):
    with opened(browser, address) as page:
        assert page.get_attribute("#toasts", "aria-live") == "polite"
        page.evaluate("() => { Messages.error(new Error('It is broken.')); Messages.toast('It is saved.'); }")
        assert page.inner_text("#toasts [role=alert]") == "It is broken."
        page.evaluate("Messages.toast('It is saved.')")
        assert page.locator("#toasts li").count() == 2  # once each
