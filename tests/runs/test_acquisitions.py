"""Acquisitions as text."""

import itertools

import pytest

from hyperrecon_jax.config import default_config
from hyperrecon_jax.physics.acquisition import Acquisition, AcquisitionRange, describe_excess
from hyperrecon_jax.runs.acquisitions import (
    default_acquisition,
    format_acquisition,
    parse_acquisition,
    parse_acquisitions,
)
from hyperrecon_jax.runs.task import trained_range
from hyperrecon_jax.runtime.errors import InputError


def make_config(*, name="csmri", acceleration=4.0, sigma=0.05, mask="random_lines"):
    config = default_config()
    with config.ignore_type():
        config.task.update({"name": name, "acceleration": acceleration, "sigma": sigma, "mask": mask})
    return config


SINGLE = make_config()
RANGE = make_config(acceleration=(2.0, 8.0), sigma=(0.0, 0.1), mask=("poisson_disc", "random_lines"))


def test_missing_fields_are_those_of_the_run():
    assert parse_acquisitions("sigma=0", SINGLE) == [Acquisition(4.0, 0.0, "random_lines")]
    assert parse_acquisition("mask=random_lines", RANGE) == pytest.approx((4.0, 0.025, "random_lines"))
    assert default_acquisition(SINGLE) == Acquisition(4.0, 0.05, "random_lines")


def test_several_values_give_all_combinations():
    acquisitions = parse_acquisitions("acceleration=2:4:8, mask=poisson_disc:random_lines", RANGE)
    expected = list(itertools.product((2.0, 4.0, 8.0), ("poisson_disc", "random_lines")))
    assert [(acquisition.acceleration, acquisition.mask) for acquisition in acquisitions] == expected


def test_text_and_acquisition_are_inverse():
    acquisition = Acquisition(3.5, 0.02, "equispaced_lines")
    assert format_acquisition(acquisition) == "acceleration=3.5,sigma=0.02,mask=equispaced_lines"
    assert parse_acquisition(format_acquisition(acquisition), SINGLE) == acquisition


@pytest.mark.parametrize(
    ("text", "config", "message"),
    [
        ("", SINGLE, "must be acceleration=..., sigma=... and mask=..., once each, got ''"),
        ("speed=4", SINGLE, "once each, got 'speed=4'"),
        ("sigma=0,sigma=1", SINGLE, "once each, got 'sigma=1'"),
        ("acceleration=2:4:2", SINGLE, "must differ from one another, got 'acceleration=2:4:2'"),
        ("acceleration=0.5", SINGLE, "acceleration of an acquisition must be a number of at least 1, got '0.5'"),
        ("acceleration=2:inf", SINGLE, "at least 1, got 'inf'"),
        ("sigma=-1", SINGLE, "sigma of an acquisition must be a number of at least 0, got '-1'"),
        ("sigma=nan", SINGLE, "got 'nan'"),
        ("mask=spiral", SINGLE, "must be one of poisson_disc, poisson_disc_authors, random_lines, equispaced_lines"),
        ("mask=equispaced_lines", RANGE, "must be one of poisson_disc, random_lines, got 'equispaced_lines'"),
        ("sigma=0", make_config(name="denoising"), "\"csmri\" alone, got 'denoising'"),
    ],
)
def test_mistakes_are_told(text, config, message):
    with pytest.raises(InputError, match=message.replace("...", r"\.\.\.")):
        parse_acquisitions(text, config)


def test_one_acquisition_is_one():
    with pytest.raises(InputError, match="must be one acquisition, got the 2 of"):
        parse_acquisition("sigma=0:0.1", SINGLE)


def test_the_trained_acquisitions_of_a_run_without_a_range():
    assert trained_range(SINGLE) == AcquisitionRange((4.0, 4.0), (0.05, 0.05), ("random_lines",))
    assert trained_range(RANGE).accelerations == (2.0, 8.0)
    assert describe_excess(trained_range(SINGLE), default_acquisition(SINGLE)) == []
    assert describe_excess(trained_range(SINGLE), Acquisition(8.0, 0.0, "poisson_disc")) == [
        "The network was trained for acceleration 4, this is 8.",
        "The network was trained for noise 0.05, this is 0.",
        "The network was trained for random lines, this is poisson disc.",
    ]
