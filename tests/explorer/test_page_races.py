"""Answers that arrive late, in a real Chromium: what the user has gone to meanwhile stays, nothing waits for ever."""

import itertools
import time

import numpy as np
import pytest
from helper import npy_bytes

from hyperrecon_jax.runtime.errors import InputError
from tests.explorer.chromium import EXACT, needs_chromium, opened
from tests.explorer.test_page_scans import LARGE, drop, link_of, wait_for_volume
from tests.explorer.test_scans import STRAIGHT, nii

pytestmark = [pytest.mark.slow, needs_chromium]

numbers = itertools.count(1)


@pytest.fixture
def page(shown, browser):
    """The page with a volume of two frames that no other tab has, and at the end no error that a test has not closed."""
    with opened(browser, shown.address) as page:
        drop(page, [("four.nii.gz", nii(np.stack([LARGE, LARGE[::-1] * next(numbers)], -1), STRAIGHT))])
        wait_for_volume(page, "test")
        page.wait_for_selector("#toasts li.info")
        page.click("#toasts li.info button")
        yield page
        assert page.eval_on_selector_all("#toasts li.error", "all => all.map(item => item.innerText)") == []


def slow_down(monkeypatch, owner, name, seconds=0.7):
    """Let a method take longer; the list that is returned gets the arguments of each call."""
    method, calls = getattr(owner, name), []

    def run(*arguments, **options):
        calls.append((arguments, options))
        time.sleep(seconds)
        return method(*arguments, **options)

    monkeypatch.setattr(owner, name, run)
    return calls


def ids(page):
    return page.eval_on_selector_all("#volume option", "all => all.map(option => option.value)")


def wait_until_quiet(page):
    page.wait_for_function("() => !document.querySelector('#toasts li.busy')")
    page.wait_for_timeout(300)


def test_of_planes_and_frames_chosen_quickly_the_last_is_shown(page, shown, monkeypatch):
    calls = slow_down(monkeypatch, shown.engine.volumes, "cut_again")
    for plane in ("coronal", "axial", "sagittal"):
        page.select_option("#plane", plane)
        page.wait_for_timeout(50)
    page.fill("#frame", "1")
    page.keyboard.press("Enter")
    page.wait_for_selector(f"{EXACT}[data-volume$='.sagittal.1']")
    wait_until_quiet(page)
    assert page.evaluate("explorer.state.volume").endswith(".sagittal.1")
    assert len(ids(page)) == 2
    assert len(calls) == 2  # the first choice and the last


def test_a_plane_that_comes_late_leaves_the_user_where_he_is(page, shown, monkeypatch):
    slow_down(monkeypatch, shown.engine.volumes, "cut_again")
    page.select_option("#plane", "coronal")
    page.wait_for_timeout(100)
    page.select_option("#volume", "test")
    wait_until_quiet(page)
    assert page.evaluate("explorer.state.volume") == "test"
    assert [volume.partition(".")[2] for volume in ids(page)] == ["", "coronal.0"]


def test_a_plane_that_is_refused_is_not_chosen(page, shown, monkeypatch):
    def refuse(*arguments, **options):
        raise InputError("The slices must be larger.")

    monkeypatch.setattr(shown.engine.volumes, "cut_again", refuse)
    page.focus("#plane")
    page.select_option("#plane", "coronal")
    page.wait_for_selector("#toasts li.error:has-text('must be larger')")
    page.wait_for_function("() => document.querySelector('#plane').value === 'acquired'")
    page.click("#toasts li.error button")


def test_another_frame_shows_the_same_slice(page):
    page.fill("#slice", "7")
    page.fill("#frame", "1")
    page.keyboard.press("Enter")
    page.wait_for_selector(f"{EXACT}[data-volume$='.acquired.1'][data-index='7']")


def test_a_volume_is_removed_once(page, shown, monkeypatch):
    slow_down(monkeypatch, shown.engine.volumes, "remove", 0.4)
    page.dblclick("#remove-volume")
    page.wait_for_selector(f"{EXACT}[data-volume=test]")
    wait_until_quiet(page)
    assert ids(page) == ["test"]


def test_a_file_that_arrives_late_leaves_the_user_where_he_is(page, shown, monkeypatch):
    volume = page.evaluate("explorer.state.volume")
    link = link_of(page, volume)
    page.select_option("#volume", "test")
    page.wait_for_selector(f"{EXACT}[data-volume=test]")
    link_of(page, "volume=test")  # else the pasted link would be the address that the page still has
    calls = slow_down(monkeypatch, shown.engine.volumes, "add_series")
    drop(page, [("late.npy", npy_bytes(np.eye(24)))])
    page.wait_for_timeout(200)
    page.evaluate("link => { location.hash = link.split('#')[1]; }", link)
    page.wait_for_selector("#toasts li.info:has-text('late.npy')")
    page.wait_for_timeout(300)
    assert calls
    assert page.evaluate("explorer.state.volume") == volume
    assert len(ids(page)) == 3
    for name in ("first.npy", "second.npy"):  # of two files that are on their way the user sees both
        drop(page, [(name, npy_bytes(np.eye(24) * (2 + len(name))))])
    page.wait_for_function("() => document.querySelectorAll('#volume option').length === 5")
    wait_until_quiet(page)
    assert page.inner_text("#volume option:checked") in ("first.npy", "second.npy")


def test_a_slice_that_fails_does_not_load_for_ever(page, shown, monkeypatch):
    measure = shown.engine.volumes.measure

    def fail(volume, index, *arguments, **options):
        if volume != "test" and index == 5:
            raise InputError("The slice must hold an image.")
        return measure(volume, index, *arguments, **options)

    monkeypatch.setattr(shown.engine.volumes, "measure", fail)
    page.fill("#slice", "5")
    page.wait_for_selector("#toasts li.error:has-text('The slice must hold an image')")
    page.wait_for_timeout(500)
    assert page.query_selector("figure.loading") is None
    assert "No picture" in page.inner_text("#view-message")
    page.click("#toasts li.error button")
    page.fill("#slice", "6")
    page.wait_for_selector(f"{EXACT}[data-index='6']")
    assert page.is_hidden("#view-message")
    monkeypatch.undo()
    page.fill("#slice", "5")
    page.wait_for_selector(f"{EXACT}[data-index='5']")


def test_a_search_of_a_volume_that_is_removed_ends_without_a_message(page, shown, monkeypatch):
    slow_down(monkeypatch, shown.engine, "find_best", 0.7)
    page.click("#best")
    page.wait_for_timeout(200)
    page.click("#remove-volume")
    page.wait_for_selector(f"{EXACT}[data-volume=test]")
    page.wait_for_function("() => !document.querySelector('#searches li')")
    wait_until_quiet(page)


def test_an_export_of_all_slices_goes_on_when_another_plane_is_chosen(page, shown, monkeypatch):
    volume = page.evaluate("explorer.state.volume")
    slow_down(monkeypatch, shown.engine, "reconstruct", 0.05)
    with page.expect_download() as download:
        page.click("[data-volume-format=nii]")
        page.wait_for_selector("#toasts li.busy:has-text('%')")
        page.select_option("#plane", "coronal")
        page.wait_for_selector(f"{EXACT}[data-volume$='.coronal.0']")
    assert download.value.suggested_filename == "four_all_lambda_0.5.nii.gz"
    with pytest.raises(InputError, match="no volume"):  # it was open for the export alone
        shown.engine.volumes.get(volume)


def test_arrows_step_slices_after_a_choice_by_mouse(page):
    """Who works with the keyboard keeps the focus, and goes through the planes with the arrows."""
    page.focus("#plane")
    page.dispatch_event("#plane", "pointerdown")
    page.select_option("#plane", "coronal")
    page.wait_for_selector(f"{EXACT}[data-volume$='.coronal.0']")
    index = page.evaluate("explorer.state.index")
    page.keyboard.press("ArrowUp")
    assert page.evaluate("explorer.state.index") == index + 1
    page.focus("#plane")
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    page.select_option("#plane", "axial")
    assert page.evaluate("document.activeElement.id") == "plane"
    page.wait_for_selector(f"{EXACT}[data-volume$='.axial.0']")


def test_a_search_is_named_in_the_words_of_the_controls(address, browser):
    with opened(browser, address) as page:
        page.route("**/api/diverse*", lambda route: None)  # never answered
        page.click("#diverse")
        page.wait_for_selector("#searches li:has-text('(4-fold, noise 0.025, poisson disc)')")


def test_a_field_that_is_left_shows_what_is_used(page):
    for field, wrong, used in (("#lambda-number-1", "1.5", "0.500"), ("#frame", "7", "0"), ("#window", "", None)):
        used = used or page.input_value(field)
        page.focus(field)
        page.fill(field, wrong)
        page.keyboard.press("Tab")
        page.wait_for_function("([field, used]) => document.querySelector(field).value === used", arg=[field, used])
