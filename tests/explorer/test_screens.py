"""The page on screens from a phone to a desktop: all controls are visible, apart from each other, and large enough."""

import pytest

from tests.explorer.chromium import answer_diverse, needs_chromium, opened

pytestmark = [pytest.mark.slow, needs_chromium]

SIZES = {  # name -> width and height, and whether it is touched
    "phone": ((390, 844), True),
    "phone held across": ((844, 390), True),
    "200 % zoom": ((683, 384), False),
    "small desktop": ((1280, 800), False),
    "large desktop": ((1920, 1080), False),
    "400 % zoom": ((320, 256), False),
}

# Each control with its target: a checkbox, a radio button or a file with its label. The texts say what is wrong.
WALK = """() => {
    const wrong = [];
    const main = document.querySelector("main");
    const name = (e) => e.id ? `#${e.id}` : `${e.tagName.toLowerCase()} "${e.textContent.trim()}"`;
    if (document.documentElement.scrollWidth > innerWidth) wrong.push("the page is wider than the window");
    if (document.documentElement.scrollHeight > innerHeight) wrong.push("the page scrolls beside its parts");
    const isShown = (e) => e.checkVisibility() && e.getClientRects().length && !e.closest("dialog");
    const labelled = (e) => e.matches("[type=checkbox], [type=radio], [type=file]");
    const target = (e) => labelled(e) && e.labels.length ? e.labels[0] : e;
    const controls = [...document.querySelectorAll("button, select, input, summary, a[href], [tabindex='0']")];
    const targets = [...new Set(controls.filter(isShown).map(target))];
    const scroller = (e) => {
        for (let at = e.parentElement; at; at = at.parentElement)
            if (/auto|scroll/.test(getComputedStyle(at).overflowY)) return at;
        return document.body;
    };
    const scrolls = (e) => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== "inline";
    const floats = (e) => Boolean(e.closest("#toasts"));
    // In the flow, before anything is scrolled: no two controls of a list overlap.
    const boxes = targets.map((e) => ({ e, in: scroller(e), box: e.getBoundingClientRect() }));
    boxes.forEach(({ e, in: parent, box }, i) => {
        for (const other of boxes.slice(i + 1)) {
            if (parent !== other.in || e.contains(other.e) || other.e.contains(e) || floats(e) || floats(other.e)) continue;
            const across = Math.min(box.right, other.box.right) - Math.max(box.left, other.box.left);
            const down = Math.min(box.bottom, other.box.bottom) - Math.max(box.top, other.box.top);
            if (across > 1.5 && down > 1.5) wrong.push(`${name(e)} overlaps ${name(other.e)}`);
        }
    });
    // Each one, scrolled to: inside of the window, on top, and of a size that can be hit.
    for (const e of targets) {
        e.scrollIntoView({ block: "nearest" });
        const box = e.getBoundingClientRect();
        if (box.width < 23.5 || box.height < 23.5) wrong.push(`${name(e)} is ${box.width} x ${box.height}`);
        const inside = box.left >= 0 && box.top >= 0 && box.right <= innerWidth + 0.5 && box.bottom <= innerHeight + 0.5;
        if (!inside) wrong.push(`${name(e)} is outside of the window: ${JSON.stringify(box)}`);
        const hit = document.elementFromPoint((box.left + box.right) / 2, (box.top + box.bottom) / 2);
        const isOnTop = hit && (e.contains(hit) || hit.contains(e) && hit.closest("label"));
        if (!isOnTop) wrong.push(`${name(e)} is under ${hit && name(hit)}`);
        if (e.matches("button, label") && scrolls(e)) wrong.push(`the text of ${name(e)} is cut off`);
    }
    for (const e of document.querySelectorAll("main p, main td, main th, main h2, header h1, #toasts li, dialog"))
        if (isShown(e) && scrolls(e) && e.id !== "pixel") wrong.push(`${name(e)} is cut off`);
    for (const caption of document.querySelectorAll("figcaption")) {
        const [box, around] = [caption, caption.parentElement].map((e) => e.getBoundingClientRect());
        if (isShown(caption) && box.right > around.right) wrong.push("the caption of an image is cut off");
    }
    main.scrollTop = 0;
    return { wrong, count: targets.length };
}"""
# What each test shows before it walks; the last part of each is what it waits for.
STATES = {
    "start": ("() => 0", "#mode-single[aria-pressed=true]"),
    "A and B": ("() => document.querySelector('#mode-side').click()", "#view-b[data-exact=true]"),
    "flicker": ("() => document.querySelector('#mode-flicker').click()", "#flicker-swap"),
    "difference": ("() => document.querySelector('#mode-difference').click()", "#gain"),
    "profile": (
        "() => { document.querySelector('#tool-profile').click(); explorer.state.profile = [[0.1, 0.1], [0.9, 0.8]]; }",
        "#profile-close",
    ),
    "explanations": (
        "() => { document.querySelector('#lambda .term').click(); document.querySelector('th .term').click(); }",
        "#metric-hint",
    ),
    "messages": (
        "() => { for (let i = 0; i < 6; i++) Messages.toast(`Message number ${i} is about a_file_with_a_very_long_name_"
        "${'x'.repeat(60)}.nii.gz and stays until it is read.`, i % 2 ? 'error' : 'info'); }",
        "#toasts li.error",
    ),
    "good ones": ("() => document.querySelector('#diverse').click()", "#diverse-list button >> nth=2"),
}


@pytest.mark.parametrize(
    ("which", "size"), [*(("address", size) for size in SIZES), ("pad_address", "phone"), ("pad_address", "small desktop")]
)
def test_every_control_is_reachable(browser, request, which, size):
    (width, height), is_touched = SIZES[size]
    wrong = []
    with opened(
        browser, request.getfixturevalue(which), size=(width, height), has_touch=is_touched, is_mobile=is_touched
    ) as page:
        answer_diverse(page)
        for state, (show, shown) in STATES.items():
            page.evaluate(show)
            page.wait_for_selector(shown)
            page.wait_for_timeout(100)
            walked = page.evaluate(WALK)
            assert walked["count"] > 30
            wrong += [f"{state}: {text}" for text in walked["wrong"]]
        assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("size", SIZES)
def test_messages_stay_and_never_cover_the_picture(browser, address, size):
    (width, height), is_touched = SIZES[size]
    with opened(browser, address, size=(width, height), has_touch=is_touched, is_mobile=is_touched) as page:
        page.evaluate("() => { for (let i = 0; i < 9; i++) Messages.toast(`Message ${i} `.repeat(9), 'error'); }")
        picture, messages = (page.locator(name).bounding_box() for name in ("#views", "#toasts"))
        assert messages["y"] + messages["height"] <= height + 1
        apart_across = messages["x"] >= picture["x"] + picture["width"] - 1
        apart_down = messages["y"] >= min(picture["y"] + picture["height"], height) - 1
        assert apart_across or apart_down or size == "400 % zoom"
        assert page.locator("#toasts li").count() == 9
        page.clock.install()
        page.clock.fast_forward(60_000)  # a message that went by itself would be gone
        assert page.locator("#toasts li").count() == 9
        page.click("#toasts li:first-child button")
        assert page.locator("#toasts li").count() == 8


@pytest.mark.parametrize("size", SIZES)
def test_the_picture_is_large_and_stays_beside_lambda(browser, address, size):
    """Whoever moves lambda sees the picture; only at 400 % there is no room for both."""
    (width, height), is_touched = SIZES[size]
    with opened(browser, address, size=(width, height), has_touch=is_touched, is_mobile=is_touched) as page:
        picture = page.locator("#view-main canvas").bounding_box()
        assert min(picture["width"], picture["height"]) >= (120 if size == "400 % zoom" else 300)
        if size == "400 % zoom":
            return
        slider = page.locator("#lambda-slider-1").bounding_box()
        assert slider["y"] + slider["height"] <= height  # without scrolling
        assert slider["width"] >= 250
        page.evaluate("document.querySelector('main').scrollTop = 1e6")
        page.evaluate("document.querySelector('#panel').scrollTop = 1e6")
        assert page.locator("#view-main canvas").bounding_box() == pytest.approx(picture, abs=60)
