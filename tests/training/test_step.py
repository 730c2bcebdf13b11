"""The compiled step: one device equals several, both feeds agree."""

import itertools
import math
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helper import ROOT, Net, python
from jax.sharding import AxisType

from hyperrecon_jax.data import in_memory
from hyperrecon_jax.data.feed import batch_indices, stream
from hyperrecon_jax.losses.objective import Objective, make_terms
from hyperrecon_jax.models import hyperparams
from hyperrecon_jax.models.model import generate_weights, init, only_norms, train_main
from hyperrecon_jax.models.unet import UNet
from hyperrecon_jax.physics.operators import awgn, denoising
from hyperrecon_jax.physics.problem import simulated
from hyperrecon_jax.physics.sample import Sample
from hyperrecon_jax.runtime import mesh as placement
from hyperrecon_jax.training import step
from hyperrecon_jax.training.gradient import Plan

IMAGES = np.random.default_rng(0).random((10, 16, 16, 1), np.float32)
OPERATOR = denoising()
PROBLEM = simulated(OPERATOR, partial(awgn, sigma=0.1))


KINDS = {"low_rank": {"kind": "low_rank", "rank": 2}, "mixture": {"kind": "mixture"}, "film": {"generated": only_norms}}


def setup(norm="instance", keep=4, network=Net, **options):
    model, variables = init(
        jax.random.key(0), network(norm=norm), jnp.zeros((16, 16, 2)), num_terms=2, hyper_width=3, **options
    )
    optimizer = optax.sgd(0.1)  # Adam makes full steps of round-off where a gradient is zero, as before batch norm
    made = step.Setup(
        model,
        Objective(make_terms(("data_consistency", "total_variation"), PROBLEM), (0.01, 0.001)),
        PROBLEM,
        hyperparams.uniform,
        optimizer,
        batch=4,
        key=jax.random.key(1),
        keep=keep,
    )
    return made, step.initial_state(model, variables, optimizer)


def ensemble(lams, *, norm="instance", together=1):
    """As `setup`, with a network of its own at each lambda."""
    made, _ = setup(norm)
    model, variables = init(
        jax.random.key(0), Net(norm=norm), jnp.zeros((16, 16, 2)), num_terms=2, hyper_width=None, members=lams
    )
    made = made._replace(model=model, together=together)
    return made, step.initial_state(model, variables, made.optimizer)


def mesh(devices):
    return jax.make_mesh((devices,), (placement.DEVICE,), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])


def steps(made, state, devices, *, resident=True, count=3):
    on = mesh(devices)
    take_step = step.make_step(made, on, resident=resident)
    if resident:
        samples = itertools.repeat(placement.place(on, Sample(IMAGES)))
    else:
        key_order, _ = step.keys(made)
        put = partial(placement.place, on, spec=placement.SHARDED)
        samples = stream(in_memory(Sample(IMAGES)), key_order, first=0, last=count, batch=4, put=put)
    state, rows = step.place_state(on, state), []
    for batch in itertools.islice(samples, count):
        state, logs, used = take_step(state, batch)
        rows.append({**jax.device_get(logs), "used": np.asarray(used)})
    return jax.device_get(state), rows


@pytest.mark.parametrize(
    ("norm", "network", "kind"),
    [("instance", Net, "dense"), ("batch", partial(UNet, width=2), "dense"), ("batch", Net, "film")]
    + [("instance", Net, kind) for kind in KINDS],
)
def test_two_devices_equal_one(norm, network, kind):
    """Also with batch norm, whose statistics are those of the whole batch; and however the weights are generated."""
    options = KINDS.get(kind, {})
    one, logs_one = steps(*setup(norm, network=network, **options), 1)
    two, logs_two = steps(*setup(norm, network=network, **options), 2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), one.params, two.params)
    for a, b in zip(logs_one, logs_two, strict=True):
        for name in a:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-4, err_msg=name)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one.batch_stats, two.batch_stats)
    assert int(two.step) == 3


def test_streaming_from_the_host_equals_the_resident_set():
    resident, streamed = (steps(*setup(), 2, resident=r)[0] for r in (True, False))
    jax.tree.map(np.testing.assert_array_equal, resident, streamed)


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_dhs_takes_the_best_of_each_device(norm):
    """The lambdas that it says it used are those of the lowest J, by the operator's own measure of what came out."""
    made, state = setup(norm, keep=2)
    _, rows = steps(made, jax.tree.map(jnp.copy, state), 2, count=1)  # a step takes the buffers of its state
    key_order, key_step = step.keys(made)
    key_lam, key_noise = jax.random.split(jax.random.fold_in(key_step, 0))
    x = IMAGES[batch_indices(key_order, 0, count=10, batch=4)]
    y = jax.vmap(made.problem.observe)(jax.random.split(key_noise, 4), Sample(x))
    lam = made.sample_lam(key_lam, (4, 1))

    def reconstructed(lam, y):
        theta = generate_weights(made.model, state.params, lam)
        return train_main(made.model, theta, state.batch_stats, OPERATOR.to_net_input(y), batch_axes=("sample",))[0]

    x_hat = jax.vmap(reconstructed, axis_name="sample")(lam, y)
    cost = np.sum(np.square(x_hat - y), (1, 2, 3))
    expected = [lam[i + cost[i : i + 2].argmin()] for i in (0, 2)]
    np.testing.assert_array_equal(rows[0]["used"], expected)
    np.testing.assert_allclose(rows[0]["data_consistency"], np.mean([cost[:2].min(), cost[2:].min()]), rtol=1e-4)


def test_uniform_sampling_uses_all_lambdas_on_any_number_of_devices():
    (_, one), (_, two) = (steps(*setup(keep=4), devices, count=1) for devices in (1, 2))
    assert one[0]["used"].shape == (4, 1)
    np.testing.assert_array_equal(one[0]["used"], two[0]["used"])
    assert not step.uses_dhs(setup(keep=4)[0])
    assert step.uses_dhs(setup(keep=3)[0])


@pytest.mark.parametrize("keep", [4, 2])
def test_no_ground_truth_reaches_an_update(keep):
    """Where the measurement does not come from the truth: a whole step with garbage in its place, bit for bit."""
    made, state = setup(keep=keep)
    y = jnp.asarray(np.random.default_rng(3).random((16, 16, 1)), jnp.float32)
    blind = made._replace(problem=PROBLEM._replace(observe=lambda key, sample: awgn(key, y, sigma=0.1)))
    after = []
    for garbage in (0.5, np.nan):
        take_step = step.make_step(blind, mesh(1), resident=True)
        fresh = step.place_state(mesh(1), jax.tree.map(jnp.copy, state))
        after.append(jax.device_get(take_step(fresh, Sample(jnp.full((5, 16, 16, 1), garbage)))[0]))
    jax.tree.map(np.testing.assert_array_equal, *after)


EXCHANGES = re.compile(r" = (.*?) (all-gather|all-to-all|all-reduce|collective-permute|reduce-scatter)(?:-start)?\(")


def exchanged(text):
    """By kind, how many numbers each exchange of a compiled program brings to a device."""
    sizes = {}
    for shapes, kind in EXCHANGES.findall(text):
        numbers = [math.prod(map(int, filter(None, s.split(",")))) for s in re.findall(r"\w+\[([\d,]*)\]", shapes)]
        sizes.setdefault(kind, []).append(sum(numbers))
    return sizes


@pytest.mark.parametrize("keep", [4, 2])
def test_the_compiled_step_exchanges_weights_and_gradients_but_no_activations(keep):
    """Once the weights of the samples, once their gradients; not even the ranks."""
    made, state = setup(keep=keep)
    on = mesh(2)
    compiled = step.make_step(made, on, resident=False).lower(step.place_state(on, state), Sample(IMAGES[:4])).compile()
    found = exchanged(compiled.as_text())
    assert found.keys() == {"all-reduce", "all-to-all"}
    heads = sum(math.prod(shape) for _, shape in made.model.hyper.leaves if math.prod(shape) % 2 == 0)
    assert found["all-to-all"] == [2 * heads] * 2  # of the two samples of a device
    activation = 16 * 16 * 3
    assert max(found["all-reduce"]) < activation


def test_heads_lie_in_parts_and_so_does_what_the_optimizer_knows_of_them():
    made, state = setup()
    made = made._replace(optimizer=optax.adam(1e-3))
    state = step.place_state(mesh(2), step.initial_state(made.model, variables_of(state), made.optimizer))
    kernel = state.params["hyper"]["head:conv.kernel"]["kernel"]
    assert [shard.data.shape for shard in kernel.addressable_shards] == [(3, 27), (3, 27)]
    moments = state.opt_state[0].mu["hyper"]["head:conv.kernel"]["kernel"]
    assert moments.sharding == kernel.sharding
    whole = state.params["hyper"]["head:head.bias"]["bias"]  # one number has no parts
    assert {shard.data.shape for shard in whole.addressable_shards} == {(1,)}
    after, _, _ = step.make_step(made, mesh(2), resident=True)(state, placement.place(mesh(2), Sample(IMAGES)))
    assert after.params["hyper"]["head:conv.kernel"]["kernel"].sharding == kernel.sharding


def variables_of(state):
    return {"params": state.params, "batch_stats": state.batch_stats}


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_dhs_over_the_batch_equals_one_device(norm):
    """Also where one device has all of the best."""
    made, state = setup(norm, keep=2)
    made = made._replace(plan=Plan(rank_over="batch"))
    one, rows_one = steps(made, jax.tree.map(jnp.copy, state), 1)
    two, rows_two = steps(made, state, 2)
    for a, b in zip(rows_one, rows_two, strict=True):
        np.testing.assert_array_equal(np.sort(a["used"], 0), np.sort(b["used"], 0))
        np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-4)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), one.params, two.params)
    assert step.mesh_of(made._replace(keep=3)).devices.size == 2  # as many from each device is not asked
    assert step.mesh_of(made._replace(keep=3, plan=Plan())).devices.size == 1


def test_batch_norm_may_keep_to_its_device():
    """The running statistics are the mean of what two devices saw, each of two images alone."""
    made, state = setup("batch")
    before = jax.tree.map(np.asarray, state.batch_stats)
    apart, _ = steps(made._replace(plan=Plan(norm_over="device")), jax.tree.map(jnp.copy, state), 2, count=1)
    over_all, _ = steps(made, jax.tree.map(jnp.copy, state), 2, count=1)
    pieces, _ = steps(made._replace(plan=Plan(microbatch=2)), state, 1, count=1)
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, apart.batch_stats, pieces.batch_stats)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), apart.params, pieces.params)
    variances = [tree["norm"]["var"] - 0.9 * before["norm"]["var"] for tree in (apart.batch_stats, over_all.batch_stats)]
    assert not np.allclose(*variances, rtol=1e-3)


def test_microbatches_suit_the_backend():
    made, state = setup()
    assert step.microbatch(made, state.batch_stats, mesh(2)) == 1
    assert step.microbatch(made._replace(plan=Plan(microbatch=3)), state.batch_stats, mesh(1)) == 3
    assert step.microbatch(made._replace(plan=Plan(microbatch=3)), state.batch_stats, mesh(2)) == 2
    coupled, coupled_state = setup("batch")
    assert step.microbatch(coupled, coupled_state.batch_stats, mesh(2)) == 2


def test_eight_devices_equal_one():
    """Eight forced devices in a process of their own: losses, lambdas and parameters, for each way to couple samples."""
    result = python(ROOT / "tests" / "training" / "on_eight_devices.py", cwd=ROOT, timeout=600)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["instance", "batch", "dhs", "low_rank", "mixture", "film", "done"]


def test_device_mesh_divides_the_batch():
    assert placement.device_mesh(4).devices.size == 2
    assert placement.device_mesh(5).devices.size == 1
    assert placement.device_mesh(4, 2).devices.size == 2
    assert placement.device_mesh(4, 3).devices.size == 1


@pytest.mark.parametrize(("norm", "devices", "together"), [("instance", 1, 1), ("instance", 2, 3), ("batch", 2, 1)])
def test_a_member_of_an_ensemble_becomes_what_it_becomes_alone(norm, devices, together):
    lams = np.array([[0.0], [0.3], [1.0]], np.float32)
    made, state = ensemble(lams, norm=norm, together=together)
    states, rows = steps(made, jax.tree.map(jnp.copy, state), devices)
    assert int(states.step) == 3
    np.testing.assert_array_equal(np.unique(rows[0]["used"]), lams[:, 0])
    psnrs = []
    for i, lam in enumerate(lams):
        alone_model = made.model._replace(members=())
        variables = jax.tree.map(lambda leaf: leaf[0], {"params": state.params, "batch_stats": state.batch_stats})
        alone = made._replace(model=alone_model, sample_lam=partial(hyperparams.constant, lam=lam))
        expected, expected_rows = steps(alone, step.initial_state(alone_model, variables, made.optimizer), 1)
        psnrs.append(expected_rows[-1]["psnr"])
        for name in ("params", "batch_stats"):
            member = jax.tree.map(lambda leaf, i=i: leaf[i], getattr(states, name))
            jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), member, getattr(expected, name))
    np.testing.assert_allclose(rows[-1]["psnr"], np.mean(psnrs), rtol=1e-4)


def test_members_trained_together_are_what_memory_has_room_for(monkeypatch):
    made, state = ensemble(np.linspace(0, 1, 6, dtype=np.float32)[:, None])
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    share = jax.ShapeDtypeStruct((4, 16, 16, 2), jnp.float32)
    assert step.members_together(made.model, share, variables) == 1  # on a CPU, whose cache holds one
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    assert step.members_together(made.model, share, variables) == 6
    activations = 4 * 4 * 16 * 16 * 3  # bytes of the one layer of three channels
    for free, low, high in ((0, 1, 1), (2 * 20 * activations, 2, 3)):
        monkeypatch.setattr("hyperrecon_jax.runtime.memory.free_bytes", lambda free=free: free)
        assert low <= step.members_together(made.model, share, variables) <= high
