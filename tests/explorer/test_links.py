"""A link holds all that is seen: the page that it opens is in the same state and draws the same images."""

import pytest

from tests.explorer.chromium import EXACT, drawn, needs_chromium, opened

pytestmark = [pytest.mark.slow, needs_chromium]

CHANGES = {
    "view": """() => Object.assign(explorer.state, { zoom: 2.5, pan: [0.4321, 0.6543], window: 0.7, level: 0.31,
        smooth: true, profile: [[0.1, 0.2], [0.8, 0.7]], tool: "window" })""",
    "difference": "() => explorer.state.gain.difference = 17.25",
    "error": "() => explorer.state.gain.error = 3.5",
}


def state(page):
    return page.evaluate("() => ({ ...explorer.state, needsWindow: false })")


def is_equal(first, second):
    """Equal, numbers up to the four digits of a link."""
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(is_equal(first[key], second[key]) for key in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(is_equal, first, second))
    if isinstance(first, float):
        return first == pytest.approx(second, abs=1e-4)
    return first == second


def link_of(page):
    """The address, once it has been brought up to date."""
    page.wait_for_timeout(700)
    return page.evaluate("location.href")


@pytest.mark.parametrize("mode", ["single", "side", "flicker", "difference", "error"])
def test_a_link_opens_the_same_view(browser, address, mode):
    with opened(browser, address) as page:
        page.fill("#lambda-number-1", "0.123")
        page.keyboard.press("Enter")
        page.keyboard.press("b")
        page.fill("#lambda-number-1", "0.765")
        page.keyboard.press("Enter")
        page.keyboard.press("ArrowUp")
        page.fill("#acquisition-acceleration", "6.5")
        page.select_option("#acquisition-mask", "random_lines")
        page.select_option("#landscape-metric", "hfen")
        page.click(f"#mode-{mode}")
        if mode == "flicker":
            page.click("#flicker-swap")
        for change in ("view", *({mode} & set(CHANGES))):
            page.evaluate(CHANGES[change])
        page.wait_for_selector(f"{EXACT}[data-acquisition*='acceleration=6.5']")
        page.keyboard.press("a")  # draws, and brings the address up to date
        page.keyboard.press("b")
        link, expected = link_of(page), state(page)
        page.wait_for_selector(EXACT)
        images = [drawn(page, view) for view in ("view-main", "view-input", "view-truth")]
        with opened(browser, f"{address}#{link.partition('#')[2]}") as other:
            other.wait_for_timeout(300)
            opened_state = state(other)
            assert is_equal(expected, opened_state), (expected, opened_state)
            assert [drawn(other, view) for view in ("view-main", "view-input", "view-truth")] == images
            assert other.input_value("#landscape-metric") == "hfen"
            assert link_of(other) == link


def test_a_link_of_two_lambdas(browser, pad_address):
    with opened(browser, pad_address) as page:
        page.fill("#lambda-number-1", "0.9")
        page.fill("#lambda-number-2", "0.25")
        page.keyboard.press("Enter")
        page.wait_for_selector(f"{EXACT}[data-lam='0.900,0.250']")
        link, expected = link_of(page), state(page)
        with opened(browser, f"{pad_address}#{link.partition('#')[2]}") as other:
            assert is_equal(expected, state(other))


def test_a_link_without_a_part_leaves_its_default(browser, address):
    with opened(browser, f"{address}#a=0.3&mode=difference&gain_difference=-3&tool=hammer&metric=none") as page:
        page.wait_for_selector("#view-main[data-shows='A-B']")
        shown = state(page)
        assert shown["lam"]["A"] == [0.3]
        assert shown["gain"]["error"] is None
        assert shown["gain"]["difference"] >= 1  # from the image
        assert (shown["tool"], shown["metric"]) == ("pan", "psnr")


def test_a_copied_link_says_for_whom_it_opens(browser, address):
    with opened(browser, address) as page:
        page.click("#copy-link")
        page.wait_for_selector("#toasts li:has-text('It opens in this browser alone. For others, save the picture')")
