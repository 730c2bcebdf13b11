"""The compiled step: one device equals several, both feeds agree."""

import itertools
import json
import math
import re
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helper import ROOT, Net, run_python
from jax.sharding import AxisType
from random_models import random_model

from hyperrecon_jax.data import in_memory
from hyperrecon_jax.data.feed import batch_indices, stream
from hyperrecon_jax.losses.objective import Objective, make_terms
from hyperrecon_jax.models import hyperparams
from hyperrecon_jax.models.model import generate_weights, init, only_norms, train_main
from hyperrecon_jax.physics.operators import awgn, denoising
from hyperrecon_jax.physics.problem import simulated
from hyperrecon_jax.physics.sample import Sample
from hyperrecon_jax.runtime import mesh
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.training import step
from hyperrecon_jax.training.gradient import BatchPlan

IMAGES = np.random.default_rng(0).random((10, 16, 16, 1), np.float32)
OPERATOR = denoising()
PROBLEM = simulated(OPERATOR, partial(awgn, sigma=0.1))


NORMS = ["instance", pytest.param("batch", marks=pytest.mark.slow)]
KINDS = {"low_rank": {"kind": "low_rank", "rank": 2}, "mixture": {"kind": "mixture"}, "film": {"generated": only_norms}}


@cache
def make_model(norm, kind):
    return random_model(Net(norm=norm), hyper_width=3, **KINDS.get(kind, {}))


def make_setup(norm="instance", keep=4, kind="dense"):
    model, variables = make_model(norm, kind)
    variables = jax.tree.map(jnp.copy, variables)  # a step reuses the buffers of its state
    optimizer = optax.sgd(0.1)  # Adam makes full steps of round-off where a gradient is zero, as before batch norm
    setup = step.Setup(
        model,
        Objective(make_terms(("data_consistency", "total_variation"), PROBLEM), (0.01, 0.001)),
        PROBLEM,
        hyperparams.uniform,
        optimizer,
        batch=4,
        key=jax.random.key(1),
        keep=keep,
    )
    return setup, step.initial_state(model, variables, optimizer)


def make_ensemble(lams, *, norm="instance", members_at_once=1):
    """As `make_setup`, with a network for each lambda."""
    setup, _ = make_setup(norm)
    model, variables = init(
        jax.random.key(0), Net(norm=norm), jnp.zeros((16, 16, 2)), num_terms=2, hyper_width=None, members=lams
    )
    setup = setup._replace(model=model, members_at_once=members_at_once)
    return setup, step.initial_state(model, variables, setup.optimizer)


def make_mesh(devices):
    return jax.make_mesh((devices,), (mesh.DEVICE,), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])


def take_steps(setup, state, devices, *, resident=True, count=3):
    devices_mesh = make_mesh(devices)
    compiled_step = step.make_step(setup, devices_mesh, resident=resident)
    if resident:
        samples = itertools.repeat(mesh.place(devices_mesh, Sample(IMAGES)))
    else:
        key_order, _ = step.split_key(setup)
        put = partial(mesh.place, devices_mesh, specs=mesh.SHARDED)
        samples = stream(in_memory(Sample(IMAGES)), key_order, first=0, last=count, batch=4, put=put)
    state, rows = step.place_state(devices_mesh, state), []
    for batch in itertools.islice(samples, count):
        state, logs, selected_lams = compiled_step(state, batch)
        rows.append({**jax.device_get(logs), "selected_lams": np.asarray(selected_lams)})
    return jax.device_get(state), rows


@cache
def take_uniform_steps(devices, norm="instance", kind="dense"):
    """Three steps of UHS, which several tests compare with others."""
    return take_steps(*make_setup(norm, kind=kind), devices)


@pytest.mark.parametrize(
    ("norm", "kind"),
    [
        ("batch", "dense"),
        pytest.param("instance", "dense", marks=pytest.mark.slow),
        pytest.param("batch", "film", marks=pytest.mark.slow),
        pytest.param("instance", "low_rank", marks=pytest.mark.slow),
        pytest.param("instance", "mixture", marks=pytest.mark.slow),
    ],
)
def test_two_devices_equal_one(norm, kind):
    """Also with batch norm, whose statistics are those of the whole batch; and however the weights are generated."""
    on_one, rows_on_one = take_uniform_steps(1, norm, kind)
    on_two, rows_on_two = take_uniform_steps(2, norm, kind)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), on_one.params, on_two.params)
    for a, b in zip(rows_on_one, rows_on_two, strict=True):
        for name in a:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-4, err_msg=name)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), on_one.batch_stats, on_two.batch_stats
    )
    assert int(on_two.step) == 3


def test_streaming_from_the_host_equals_the_resident_set():
    resident, streamed = take_uniform_steps(2)[0], take_steps(*make_setup(), 2, resident=False)[0]
    jax.tree.map(np.testing.assert_array_equal, resident, streamed)


@pytest.mark.slow
@pytest.mark.parametrize("norm", NORMS)
def test_dhs_takes_the_best_of_each_device(norm):
    """The selected lambdas that it reports are those with the lowest J, computed here with the operator."""
    setup, state = make_setup(norm, keep=2)
    _, rows = take_steps(setup, jax.tree.map(jnp.copy, state), 2, count=1)  # a step reuses the buffers of its state
    key_order, key_step = step.split_key(setup)
    key_lam, key_noise = jax.random.split(jax.random.fold_in(key_step, 0))
    x = IMAGES[batch_indices(key_order, 0, count=10, batch=4)]
    y = jax.jit(jax.vmap(setup.problem.observe))(jax.random.split(key_noise, 4), Sample(x))
    lam = setup.sample_lam(key_lam, (4, 1))

    def reconstructed(lam, y):
        theta = generate_weights(setup.model, state.params, lam)
        return train_main(setup.model, theta, state.batch_stats, OPERATOR.to_net_input(y), batch_axes=("sample",))[0]

    x_hat = jax.jit(jax.vmap(reconstructed, axis_name="sample"))(lam, y)
    cost = np.sum(np.square(x_hat - y), (1, 2, 3))
    expected = [lam[i + cost[i : i + 2].argmin()] for i in (0, 2)]
    np.testing.assert_array_equal(rows[0]["selected_lams"], expected)
    np.testing.assert_allclose(rows[0]["data_consistency"], np.mean([cost[:2].min(), cost[2:].min()]), rtol=1e-4)


def test_uniform_sampling_uses_all_lambdas_on_any_number_of_devices():
    (_, on_one), (_, on_two) = (take_uniform_steps(devices) for devices in (1, 2))
    assert on_one[0]["selected_lams"].shape == (4, 1)
    np.testing.assert_array_equal(on_one[0]["selected_lams"], on_two[0]["selected_lams"])
    assert not step.uses_dhs(make_setup(keep=4)[0])
    assert step.uses_dhs(make_setup(keep=3)[0])


@pytest.mark.slow
@pytest.mark.parametrize("keep", [4, 2])
def test_no_ground_truth_reaches_an_update(keep):
    """With a measurement that does not come from the reference image: garbage in its place changes no bit of a step."""
    setup, state = make_setup(keep=keep)
    y = jnp.asarray(np.random.default_rng(3).random((16, 16, 1)), jnp.float32)
    blind = setup._replace(problem=PROBLEM._replace(observe=lambda key, sample: awgn(key, y, sigma=0.1)))
    after, compiled_step = [], step.make_step(blind, make_mesh(1), resident=True)
    for garbage in (0.5, np.nan):
        fresh = step.place_state(make_mesh(1), jax.tree.map(jnp.copy, state))
        after.append(jax.device_get(compiled_step(fresh, Sample(jnp.full((5, 16, 16, 1), garbage)))[0]))
    jax.tree.map(np.testing.assert_array_equal, *after)


EXCHANGES = re.compile(r" = (.*?) (all-gather|all-to-all|all-reduce|collective-permute|reduce-scatter)(?:-start)?\(")


def exchange_sizes(text):
    """How many numbers each exchange of a compiled program brings to a device, by the kind of exchange."""
    sizes = {}
    for shapes, kind in EXCHANGES.findall(text):
        numbers = [math.prod(map(int, filter(None, s.split(",")))) for s in re.findall(r"\w+\[([\d,]*)\]", shapes)]
        sizes.setdefault(kind, []).append(sum(numbers))
    return sizes


@pytest.mark.parametrize("keep", [4, pytest.param(2, marks=pytest.mark.slow)])
def test_the_compiled_step_exchanges_weights_and_gradients_but_no_activations(keep):
    """Two exchanges: the weights of the samples and their gradients. The DHS scores are not exchanged."""
    setup, state = make_setup(keep=keep)
    devices_mesh = make_mesh(2)
    compiled_step = step.make_step(setup, devices_mesh, resident=False)
    lowered = compiled_step.lower(step.place_state(devices_mesh, state), Sample(IMAGES[:4]))
    sizes = exchange_sizes(lowered.compile().as_text())
    assert sizes.keys() == {"all-reduce", "all-to-all"}
    heads = sum(math.prod(shape) for _, shape in setup.model.hyper.leaves if math.prod(shape) % 2 == 0)
    assert sizes["all-to-all"] == [2 * heads] * 2  # of the two samples of a device
    activation = 16 * 16 * 3
    assert max(sizes["all-reduce"]) < activation


def test_heads_are_sharded_and_so_is_the_optimizers_state_of_them():
    setup, initial = make_setup()
    state = step.place_state(make_mesh(2), step.initial_state(setup.model, get_variables(initial), optax.adam(1e-3)))
    kernel = state.params["hyper"]["head:conv.kernel"]["kernel"]
    assert [shard.data.shape for shard in kernel.addressable_shards] == [(3, 27), (3, 27)]
    moments = state.opt_state[0].mu["hyper"]["head:conv.kernel"]["kernel"]
    assert moments.sharding == kernel.sharding
    bias = state.params["hyper"]["head:head.bias"]["bias"]  # a single number cannot be sharded
    assert {shard.data.shape for shard in bias.addressable_shards} == {(1,)}
    take_step, samples = step.make_step(setup, make_mesh(2), resident=True), mesh.place(make_mesh(2), Sample(IMAGES))
    after, _, _ = take_step(step.place_state(make_mesh(2), initial), samples)
    assert after.params["hyper"]["head:conv.kernel"]["kernel"].sharding == kernel.sharding


def get_variables(state):
    return {"params": state.params, "batch_stats": state.batch_stats}


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_dhs_over_the_batch_equals_one_device(norm):
    """Also where all selected samples are on one device."""
    setup, state = make_setup(norm, keep=2)
    setup = setup._replace(plan=BatchPlan(rank_over="batch"))
    on_one, rows_on_one = take_steps(setup, jax.tree.map(jnp.copy, state), 1)
    on_two, rows_on_two = take_steps(setup, state, 2)
    for a, b in zip(rows_on_one, rows_on_two, strict=True):
        np.testing.assert_array_equal(np.sort(a["selected_lams"], 0), np.sort(b["selected_lams"], 0))
        np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-4)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), on_one.params, on_two.params)


def test_devices_divide_what_each_selects():
    setup, state = make_setup(keep=3)
    over_batch = setup._replace(plan=BatchPlan(rank_over="batch"))
    assert step.training_mesh(over_batch).devices.size == 2  # devices need not select the same number
    assert step.training_mesh(setup).devices.size == 1
    with pytest.raises(InputError, match="`keep` must be a multiple of the 2 devices .*, got 3"):
        take_steps(setup, state, 2)


@pytest.mark.slow
def test_batch_norm_per_device():
    """The running statistics are the mean over two devices, each with the statistics of its own two images."""
    setup, _ = make_setup("batch")
    # with random parameters in their place the statistics of the two halves would hardly differ
    _, variables = init(jax.random.key(0), setup.model.main, jnp.zeros((16, 16, 2)), num_terms=2, hyper_width=3)
    state = step.initial_state(setup.model, variables, setup.optimizer)
    before = jax.tree.map(np.asarray, state.batch_stats)
    per_device, _ = take_steps(
        setup._replace(plan=BatchPlan(norm_over="device")), jax.tree.map(jnp.copy, state), 2, count=1
    )
    over_batch, _ = take_steps(setup, jax.tree.map(jnp.copy, state), 2, count=1)
    in_microbatches, _ = take_steps(setup._replace(plan=BatchPlan(microbatch=2)), state, 1, count=1)
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, per_device.batch_stats, in_microbatches.batch_stats)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), per_device.params, in_microbatches.params)
    variances = [
        tree["norm"]["var"] - 0.9 * before["norm"]["var"] for tree in (per_device.batch_stats, over_batch.batch_stats)
    ]
    assert not np.allclose(*variances, rtol=1e-3)


def test_microbatches_suit_the_backend():
    setup, state = make_setup()
    assert step.microbatch_size(setup, state.batch_stats, make_mesh(2)) == 1
    assert step.microbatch_size(setup._replace(plan=BatchPlan(microbatch=3)), state.batch_stats, make_mesh(1)) == 3
    assert step.microbatch_size(setup._replace(plan=BatchPlan(microbatch=3)), state.batch_stats, make_mesh(2)) == 2
    coupled, coupled_state = make_setup("batch")
    assert step.microbatch_size(coupled, coupled_state.batch_stats, make_mesh(2)) == 2


@pytest.mark.slow
def test_eight_devices_equal_one():
    """Eight forced devices in another process: losses, lambdas and parameters, for each way to couple samples."""
    result = run_python(ROOT / "tests" / "training" / "on_eight_devices.py", cwd=ROOT, timeout=600)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["instance", "batch", "dhs", "low_rank", "mixture", "film", "done"]


@pytest.mark.slow
def test_what_devices_exchange_equals_the_arithmetic_of_the_docs():
    """HyperRecon-L with 32 samples on each of 1, 2, 4 and 8 devices: docs/devices.md, "Calculated traffic"."""
    script = ROOT / "tests" / "training" / "exchanges_of_devices.py"
    result = run_python(script, cwd=ROOT, timeout=900)
    assert result.returncode == 0, result.stderr
    exchanges = json.loads(result.stdout)
    assert "all-to-all" not in exchanges.pop("1")
    weights = 148_513 - 1  # the bias of the U-Net's head is one number, which no number of devices divides
    trunk = (2 * 128 + 128) + 3 * (128 * 128 + 128)
    replicated = trunk + 896 + (128 + 1)  # the norms, and what generates that bias
    for sizes in exchanges.values():
        assert sizes.keys() == {"all-to-all", "all-reduce"}
        assert sizes["all-to-all"] == [weights * 32] * 2  # the weights, and their gradients
        assert 0 <= sum(sizes["all-reduce"]) - replicated < 100  # with logs, and a norm of the gradient of each head


def test_device_mesh_divides_the_batch():
    assert mesh.device_mesh(4).devices.size == 2
    assert mesh.device_mesh(5).devices.size == 1
    assert mesh.device_mesh(4, 2).devices.size == 2
    assert mesh.device_mesh(4, 3).devices.size == 1


@pytest.mark.parametrize(
    ("norm", "devices", "members", "members_at_once", "compared"),
    [
        ("instance", 2, 2, 2, [1]),
        pytest.param("instance", 2, 3, 3, [0, 1, 2], marks=pytest.mark.slow),
        pytest.param("batch", 1, 3, 1, [0, 1, 2], marks=pytest.mark.slow),
    ],
)
def test_a_member_of_an_ensemble_becomes_what_it_becomes_alone(norm, devices, members, members_at_once, compared):
    lams = np.array([[0.0], [0.3], [1.0]], np.float32)[:members]
    setup, state = make_ensemble(lams, norm=norm, members_at_once=members_at_once)
    states, rows = take_steps(setup, jax.tree.map(jnp.copy, state), devices)
    assert int(states.step) == 3
    np.testing.assert_array_equal(np.unique(rows[0]["selected_lams"]), lams[:, 0])
    psnrs = []
    for i in compared:
        network = setup.model._replace(members=())
        variables = jax.tree.map(lambda leaf, i=i: leaf[i], {"params": state.params, "batch_stats": state.batch_stats})
        single = setup._replace(model=network, sample_lam=partial(hyperparams.constant, lam=lams[i]))
        expected, expected_rows = take_steps(single, step.initial_state(network, variables, setup.optimizer), 1)
        psnrs.append(expected_rows[-1]["psnr"])
        for name in ("params", "batch_stats"):
            member = jax.tree.map(lambda leaf, i=i: leaf[i], getattr(states, name))
            jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), member, getattr(expected, name))
    if len(compared) == len(lams):
        np.testing.assert_allclose(rows[-1]["psnr"], np.mean(psnrs), rtol=1e-4)


def test_memory_limits_the_members_at_once(monkeypatch):
    setup, state = make_ensemble(np.linspace(0, 1, 6, dtype=np.float32)[:, None])
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    share = jax.ShapeDtypeStruct((4, 16, 16, 2), jnp.float32)
    assert step.count_members_at_once(setup.model, share, variables) == 1  # on a CPU, whose cache can hold one
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    assert step.count_members_at_once(setup.model, share, variables) == 6
    activations = 4 * 4 * 16 * 16 * 3  # bytes of the one layer of three channels
    for free, low, high in ((0, 1, 1), (2 * 20 * activations, 2, 3)):
        monkeypatch.setattr("hyperrecon_jax.runtime.memory.free_bytes", lambda free=free: free)
        assert low <= step.count_members_at_once(setup.model, share, variables) <= high
