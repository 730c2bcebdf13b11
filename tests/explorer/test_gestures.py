"""The mouse, the wheel, fingers and keys on the image; the fingers are the browser's own touches."""

import numpy as np
import pytest

from tests.explorer.chromium import needs_chromium, opened

pytestmark = [pytest.mark.slow, needs_chromium]


def state(page, name):
    return page.evaluate(f"explorer.state.{name}")


def middle(page):
    box = page.locator("#view-main canvas").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def located(page, x, y):
    """The point of the image under a point of the screen."""
    return page.evaluate(
        "([x, y]) => explorer.views.main.locate({ clientX: x, clientY: y }, explorer.state)", [float(x), float(y)]
    )


def touch(page, *moments):
    """Put fingers where the first moment says, move them through the others, lift them."""
    session = page.context.new_cdp_session(page)
    for kind, points in zip(["touchStart", *["touchMove"] * (len(moments) - 1)], moments, strict=True):
        fingers = [{"x": float(x), "y": float(y), "id": i} for i, (x, y) in enumerate(points)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})
        page.wait_for_timeout(30)
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def test_the_wheel_steps_slices_and_with_ctrl_it_zooms_about_the_cursor(browser, address):
    with opened(browser, address) as page:
        x, y = middle(page)
        page.mouse.move(x + 60, y + 40)
        start = state(page, "index")
        page.mouse.wheel(0, 100)  # towards the user
        page.wait_for_function(f"() => explorer.state.index === {start - 1}")
        page.mouse.wheel(0, -100)
        page.wait_for_function(f"() => explorer.state.index === {start}")
        for _ in range(4):  # a trackpad sends many small ones
            page.mouse.wheel(0, -15)
        page.wait_for_function(f"() => explorer.state.index === {start + 1}")
        assert state(page, "zoom") == 1
        under = located(page, x + 60, y + 40)
        page.keyboard.down("Control")
        page.mouse.wheel(0, -300)
        page.wait_for_function("() => explorer.state.zoom > 1.2")
        page.keyboard.up("Control")
        assert state(page, "index") == start + 1
        np.testing.assert_allclose(located(page, x + 60, y + 40), under, atol=1e-3)  # the mouse stands on whole pixels


def test_keys_and_buttons_zoom(browser, address):
    with opened(browser, address) as page:
        page.keyboard.press("+")
        page.keyboard.press("=")
        assert state(page, "zoom") == pytest.approx(1.25**2)
        page.keyboard.press("l")
        page.keyboard.press("k")
        np.testing.assert_allclose(state(page, "pan"), [0.5 + 0.1 / 1.25**2, 0.5 - 0.1 / 1.25**2])
        page.keyboard.press("-")
        page.click("#zoom-out")
        page.click("#zoom-out")
        assert state(page, "zoom") == 1  # the whole image is the least
        for _ in range(30):
            page.click("#zoom-in")
        assert state(page, "zoom") == 40
        page.keyboard.press("r")
        assert state(page, "zoom") == 1
        np.testing.assert_allclose(state(page, "pan"), 0.5)


@pytest.mark.parametrize("size", [(390, 844), (844, 390)])
def test_one_finger_pans_and_two_zoom(browser, address, size):
    with opened(browser, address, size=size, has_touch=True, is_mobile=True) as page:
        x, y = middle(page)
        points = [located(page, x - 20, y), located(page, x + 20, y)]
        # Apart to three times the distance, and 30 pixels down: each finger keeps its point of the image.
        ends = [(x - 60, y + 30), (x + 60, y + 30)]
        touch(page, [(x - 20, y), (x + 20, y)], [(x - 40, y + 10), (x + 40, y + 10)], ends)
        assert state(page, "zoom") == pytest.approx(3, rel=1e-3)
        for end, point in zip(ends, points, strict=True):
            np.testing.assert_allclose(located(page, *end), point, atol=1e-3)
        held = located(page, x, y)
        touch(page, [(x, y)], [(x + 20, y + 15)], [(x + 50, y + 25)])
        np.testing.assert_allclose(located(page, x + 50, y + 25), held, atol=1e-3)
        assert state(page, "zoom") == pytest.approx(3, rel=1e-3)
        assert page.evaluate("document.querySelector('main').scrollTop + scrollY") == 0  # the page stays
        assert page.evaluate("visualViewport.scale") == 1


def test_the_tool_of_the_finger_can_be_window_and_level(browser, address):
    with opened(browser, address, size=(390, 844), has_touch=True, is_mobile=True) as page:
        page.tap("#tool-window")
        before, pan = state(page, "window"), state(page, "pan")
        x, y = middle(page)
        touch(page, [(x, y)], [(x + 40, y)], [(x + 90, y)])
        assert state(page, "window") > before
        assert state(page, "pan") == pan
