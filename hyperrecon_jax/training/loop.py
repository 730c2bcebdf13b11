"""The training loop: take steps, log, save, and stop if the loss diverges."""

import math
from collections.abc import Callable, Iterable

import jax
import numpy as np

from hyperrecon_jax.physics.sample import Sample
from hyperrecon_jax.runtime.errors import Diverged
from hyperrecon_jax.runtime.mesh import gather
from hyperrecon_jax.training.step import Step, TrainState

OnLog = Callable[[int, list[dict[str, float]], np.ndarray], None]  # step, the logs of steps, selected lambdas


def fit(
    step: Step,
    state: TrainState,
    samples: Iterable[Sample],
    *,
    steps: int,
    log_every: int,
    save_every: int,
    on_log: OnLog,
    on_save: Callable[[TrainState], None],
    stop: Callable[[], bool] = lambda: False,
) -> TrainState:
    """Train until `state.step` is `steps`, or until `stop` returns True.

    Args:
        step: from `make_step`.
        state: where training starts or resumes.
        samples: the second argument of `step`, one item for each step.
        steps: the total number of steps, including those that `state` has behind it.
        log_every: the number of steps between two calls of `on_log`. There is another call after the first step.
        save_every: the number of steps between two calls of `on_save`.
        on_log: called as `on_log(step, rows, selected_lams)`, with the logs of each of the m steps since the last call, and
            the lambdas of the samples selected in these steps, `(m, keep, K-1)`. It comes before `on_save`, so that a
            diverged state is never saved.
        on_save: called as `on_save(state)`, also when `stop` ends the training and at the end.
        stop: called before every step.

    Returns:
        The state after the last step.

    Raises:
        Diverged: if the loss or the gradient is not finite. It is raised at the next call of `on_log` and names the step.
    """
    first = done = saved = int(state.step)
    pending: list[tuple[dict[str, jax.Array], jax.Array]] = []  # logs and lambdas of the steps since the last `on_log`
    batches = iter(samples)
    while done < steps and not stop():
        state, logs, selected_lams = step(state, next(batches))
        if pending:
            jax.block_until_ready(pending[-1])  # one step ahead of the devices is enough, and Ctrl-C stays quick
        pending.append((logs, selected_lams))
        done += 1
        if done % log_every == 0 or done == first + 1:  # the first step takes long to compile: show that it works
            _flush(pending, done, on_log)
        if done % save_every == 0:
            _flush(pending, done, on_log)
            on_save(state)
            saved = done
    _flush(pending, done, on_log)
    if saved != done:
        on_save(state)
    return state


def _flush(pending: list[tuple[dict[str, jax.Array], jax.Array]], done: int, on_log: OnLog) -> None:
    """Check and log the pending steps, the last of which is step `done`, and empty the list."""
    if not pending:
        return
    rows, selected_lams = zip(*jax.device_get(gather(pending)), strict=True)
    for i, row in enumerate(rows, start=done - len(rows) + 1):
        if not (math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"])):
            raise Diverged(f"the loss or its gradient is not finite at step {i} (loss {row['loss']:.4g})")
    on_log(done, [{name: float(value) for name, value in row.items()} for row in rows], np.stack(selected_lams))
    pending.clear()
