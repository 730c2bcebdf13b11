"""The loop of training: one step after the other, what they log, when the state is saved, and a stop where it diverged."""

import math
from collections.abc import Callable, Iterable

import jax
import numpy as np

from hyperrecon_jax.physics.sample import Sample
from hyperrecon_jax.runtime.errors import Diverged
from hyperrecon_jax.runtime.mesh import gather
from hyperrecon_jax.training.step import Step, TrainState


def fit(
    step: Step,
    state: TrainState,
    samples: Iterable[Sample],
    *,
    steps: int,
    log_every: int,
    save_every: int,
    on_log: Callable[[int, dict[str, float], np.ndarray], None],
    on_save: Callable[[TrainState], None],
    stop: Callable[[], bool] = lambda: False,
) -> TrainState:
    """Run until `steps` steps are done in all, or until `stop`.

    Args:
        step: from `make_step`.
        state: where to go on; its step counts.
        samples: what `step` takes, one item a step.
        steps: when to end.
        log_every: steps between calls of `on_log(step, means, used)`, with the means of the logs and the lambdas that
            counted in the m steps since the last call, `(m, keep, K-1)`; it is called after the first step, too.
        save_every: steps between calls of `on_save(state)`.
        on_log: called first, so that a state that diverged is never saved.
        on_save: also called when `stop` ends the run, and at the end.
        stop: asked before every step.

    Returns:
        The state after the last step.

    Raises:
        Diverged: at the end of the logging interval in which loss or gradient stopped being finite; names the step.
    """
    first = done = int(state.step)
    since: list[tuple[dict[str, jax.Array], jax.Array]] = []

    def flush():
        if since:
            rows, used = zip(*jax.device_get(gather(since)), strict=True)
            for i, row in enumerate(rows, start=done - len(rows) + 1):
                if not (math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"])):
                    raise Diverged(f"the loss or its gradient is not finite at step {i} (loss {row['loss']:.4g})")
            on_log(done, {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}, np.stack(used))
            since.clear()

    saved = done
    supply = iter(samples)
    while done < steps and not stop():
        state, logs, used = step(state, next(supply))
        if since:
            jax.block_until_ready(since[-1])  # one step ahead of the devices is enough, and Ctrl-C stays quick
        since.append((logs, used))
        done += 1
        if done % log_every == 0 or done == first + 1:  # the first step compiles: say that it works, start the clock
            flush()
        if done % save_every == 0:
            flush()
            on_save(state)
            saved = done
    flush()
    if saved != done:
        on_save(state)
    return state
