"""The loop, with a step that costs nothing: what it logs and saves, and that a diverged state is not saved."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from hyperrecon_jax.runtime.errors import Diverged
from hyperrecon_jax.training.loop import fit
from hyperrecon_jax.training.step import TrainState


def fake_state(step=0):
    return TrainState(jnp.asarray(step), {}, {}, {})


def fake_step(state, image):
    logs = {"loss": jnp.asarray(image, jnp.float32), "grad_norm": jnp.ones(())}
    return state._replace(step=state.step + 1), logs, jnp.full((2, 1), image)


def run_loop(losses, *, first=0, stop=lambda: False, log_every=2, save_every=5):
    logged, saved = [], []

    def log(step, rows, selected_lams):
        logged.append((step, np.mean([row["loss"] for row in rows])))
        assert selected_lams[..., 0].tolist() == [
            [loss] * 2 for loss in losses[step - first - len(selected_lams) : step - first]
        ]

    state = fit(
        fake_step,
        fake_state(first),
        losses,
        steps=first + len(losses),
        log_every=log_every,
        save_every=save_every,
        on_log=log,
        on_save=lambda state: saved.append(int(state.step)),
        stop=stop,
    )
    return int(state.step), logged, saved


def test_the_loop_logs_means_and_saves_at_its_intervals_and_at_the_end():
    assert run_loop([1.0, 2, 3, 4, 5, 6, 7]) == (7, [(1, 1), (2, 2), (4, 3.5), (5, 5), (6, 6), (7, 7)], [5, 7])
    assert run_loop([1.0, 3], first=4) == (6, [(5, 1), (6, 3)], [5, 6])


def test_a_finished_loop_does_nothing():
    assert run_loop([], first=4) == (4, [], [])


def test_stop_saves():
    asked = itertools.count()
    assert run_loop([1.0] * 9, stop=lambda: next(asked) >= 3) == (3, [(1, 1), (2, 1), (3, 1)], [3])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_divergence_stops_before_the_state_is_saved_and_names_the_step(bad):
    saved = []
    with pytest.raises(Diverged, match="not finite at step 4"):
        fit(
            fake_step,
            fake_state(),
            [1.0, 1, 1, bad, 1, 1],
            steps=6,
            log_every=100,
            save_every=5,
            on_log=lambda step, rows, selected_lams: None,
            on_save=lambda state: saved.append(int(state.step)),
        )
    assert saved == []
