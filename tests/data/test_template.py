"""The carried copy of the atlas: what it holds, what it weighs, and that the notice stays with it."""

import hashlib

import numpy as np

from hyperrecon_jax.data import template


def test_file_is_small_and_the_notice_is_with_it():
    assert template.FILE.stat().st_size < 2_000_000
    notice = " ".join((template.FILE.parent / "NOTICE").read_text().split())
    assert "Copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging Centre" in notice
    assert "provided that the above copyright notice appear in all copies" in notice


def test_volumes_are_those_of_nilearn_bit_for_bit_inside_the_brain():
    """Golden: remake.py compared with nilearn 0.14.1's files, cropped and with probabilities cleared where T1 is 0."""
    volumes = np.stack(template.load())
    assert volumes.shape == (3, 145, 181, 155)
    assert volumes.dtype == np.uint8
    digest = hashlib.sha256(volumes.tobytes()).hexdigest()
    assert digest == "7b7ee18a04f8958eced462cec40a285238b10238ed7c22df1ae7459fea1504b2"
    assert np.count_nonzero(volumes[0]) == 1_886_539


def test_decode_undoes_encode():
    halves = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 5), np.uint8)
    decoded = np.stack(template.decode(template.encode(halves)))
    np.testing.assert_array_equal(decoded[:, 3:], halves)
    np.testing.assert_array_equal(decoded, decoded[:, ::-1])
