"""PyTorch state dicts in and out: the authors' tensors, and a U-Net in PyTorch that loads x_hat."""

import re
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helper import Net, load_fixture, select_prefix, to_nhwc
from random_models import random_model, reconstruct_batch, torch_unet

from hyperrecon_jax.models import model, tensor_files
from hyperrecon_jax.models.interop import from_torch, to_torch
from hyperrecon_jax.models.unet import UNet
from hyperrecon_jax.runtime.errors import InputError

FIXTURES = ("unet_h8", "hyperunet_h8_d4_k2")
STATE = select_prefix(load_fixture("unet_h8"), "state/")
HYPER_STATE = select_prefix(load_fixture("hyperunet_h8_d4_k2"), "state/")


def assert_same(state, expected):
    assert list(state) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(state[name], array, strict=True, err_msg=name)


@pytest.mark.parametrize("name", FIXTURES)
def test_the_authors_tensors_give_their_output_and_come_back_unchanged(name):
    reference = load_fixture(name)
    state = select_prefix(reference, "state/")
    network, variables = from_torch(state)
    # their input are the coefficients (1 - lambda, lambda)
    lam = reference["coefficients"][:, 1:] if "coefficients" in reference else np.zeros((3, 0), np.float32)
    x_hat = reconstruct_batch(network, variables, lam, to_nhwc(reference["input"]))
    expected = to_nhwc(reference["eval_output"])
    np.testing.assert_allclose(x_hat, expected, rtol=0, atol=1e-4 * max(1, np.abs(expected).max()))
    assert_same(to_torch(network, variables), state)


def test_without_the_residual():
    reference = load_fixture("unet_h8")
    network, variables = from_torch(STATE, residual=False)
    y = to_nhwc(reference["input"])
    x_hat = reconstruct_batch(network, variables, np.zeros((3, 0)), y) + np.linalg.norm(y, axis=-1, keepdims=True)
    np.testing.assert_allclose(x_hat, to_nhwc(reference["eval_output"]), atol=1e-4)


@pytest.mark.parametrize(
    ("norm", "hyper_width", "num_terms", "channels"),
    [
        ("batch", 5, 3, (4, 2)),
        ("none", None, 1, (2, 1)),
        pytest.param("batch", None, 1, (2, 1), marks=pytest.mark.slow),
        pytest.param("instance", 5, 3, (4, 2), marks=pytest.mark.slow),
    ],
)
def test_what_goes_out_comes_in_again(norm, hyper_width, num_terms, channels):
    """Every size is found again, and every number where it was."""
    options = {"num_terms": num_terms, "hyper_width": hyper_width, "channels": channels[0]}
    network, variables = random_model(UNet(3, channels[1], norm=norm), **options)
    state = to_torch(network, variables, batches=7)
    restored, loaded = from_torch(state)
    assert restored == network
    assert jax.tree.structure(loaded) == jax.tree.structure(variables)
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)
    assert all(state[name] == 7 for name in state if name.endswith("num_batches_tracked"))
    assert {name.split(".")[-3 if "hyper" in name else -2] for name in state if "dconv" in name} == {
        *("02" if norm == "none" else "0134")
    }


@pytest.mark.slow
def test_a_hypernetwork_of_another_depth():
    state = {name: array for name, array in HYPER_STATE.items() if "lin3" not in name and "lin4" not in name}
    network, variables = from_torch(state)
    h = np.asarray([0.25, 0.75])
    for layer in ("hnet.lin1", "hnet.lin2"):
        h = state[f"{layer}.weight"] @ h + state[f"{layer}.bias"]
        h = np.maximum(h, 0.01 * h)
    head = "unet.dconv_up3.0.hyperkernel"
    kernel = (state[f"{head}.weight"] @ h + state[f"{head}.bias"]).reshape(8, 16, 3, 3)
    theta = model.generate_weights(network, variables["params"], jnp.asarray([0.75]))
    np.testing.assert_allclose(theta["up3_conv0"]["kernel"], kernel.transpose(2, 3, 1, 0), rtol=1e-4, atol=1e-4)
    assert_same(to_torch(network, variables), state)


@pytest.mark.parametrize(
    ("norm", "residual"),
    [
        ("batch", True),
        pytest.param("instance", False, marks=pytest.mark.slow),
        pytest.param("none", True, marks=pytest.mark.slow),
    ],
)
def test_a_network_of_pytorch_takes_our_state_and_agrees(norm, residual):
    torch = pytest.importorskip("torch")
    network, variables = random_model(UNet(3, norm=norm, residual=residual))
    torch_network = torch_unet(3, norm=norm, residual=residual).eval()
    torch_network.load_state_dict({name: torch.tensor(array) for name, array in to_torch(network, variables).items()})
    y = np.random.default_rng(2).normal(size=(2, 16, 24, 2)).astype(np.float32)
    with torch.no_grad():
        expected = torch_network(torch.tensor(y.transpose(0, 3, 1, 2))).numpy()
    x_hat = reconstruct_batch(network, variables, np.zeros((2, 1)), y)
    np.testing.assert_allclose(x_hat, to_nhwc(expected), rtol=0, atol=1e-4 * max(1, np.abs(expected).max()))
    torch_state = torch_network.state_dict()
    assert_same(to_torch(*from_torch(torch_state)), {name: tensor.numpy() for name, tensor in torch_state.items()})


@pytest.mark.parametrize("kind", ["unet.npz", "unet.safetensors", "unet.pt", "unet.pth.tar"])
def test_files(tmp_path, kind):
    path = tmp_path / kind
    if path.suffix in (".pt", ".tar"):
        pytest.importorskip("torch")
    tensor_files.write(path, HYPER_STATE)
    assert [file.name for file in tmp_path.iterdir()] == [kind]
    assert_same(to_torch(*from_torch(path)), HYPER_STATE)


def test_a_training_checkpoint_of_dataparallel(tmp_path):
    torch = pytest.importorskip("torch")
    state = {f"module.{name}": torch.tensor(array) for name, array in STATE.items()}
    torch.save({"epoch": 3, "state_dict": state, "optimizer": {"lr": 1e-3}}, tmp_path / "model.pth.tar")
    assert_same(to_torch(*from_torch(tmp_path / "model.pth.tar")), STATE)
    halves = {name: tensor.bfloat16() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    _, variables = from_torch(halves)
    bias = variables["params"]["main"]["head"]["bias"]
    assert bias.dtype == jnp.float32
    np.testing.assert_allclose(bias, STATE["conv_last.bias"], rtol=2**-8)


class Other:
    pass


def test_files_that_cannot_be_read(tmp_path, monkeypatch):
    def refused(path, match):
        with pytest.raises(InputError, match=match) as error:
            from_torch(path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)

    refused(tmp_path / "unet.npz", "there is none")
    refused(tmp_path / "unet.onnx", r"must end with one of \.npz, \.safetensors")
    for suffix in ("npz", "safetensors", "pt"):
        if suffix == "pt":
            pytest.importorskip("torch")
        (tmp_path / f"bad.{suffix}").write_bytes(b"no such thing")
        refused(tmp_path / f"bad.{suffix}", "cannot be read")
    import torch

    torch.save({"a": Other()}, tmp_path / "object.pt")
    refused(tmp_path / "object.pt", "must hold tensors alone")
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    refused(tmp_path / "list.pt", "tensors by name, got list")
    monkeypatch.setitem(sys.modules, "torch", None)
    refused(tmp_path / "list.pt", "takes the package torch, which is not installed")
    with pytest.raises(InputError, match="takes the package torch"):
        tensor_files.write(tmp_path / "new.pt", STATE)
    assert not (tmp_path / "new.pt").exists()


def test_a_wrong_state_says_which_tensors():
    def message(state):
        with pytest.raises(InputError) as error:
            from_torch(state)
        return str(error.value)

    without = {name: array for name, array in STATE.items() if name != "dconv_up1.3.bias"}
    assert message(without).endswith("hyper-U-Net; missing: dconv_up1.3.bias.")
    assert message(STATE | {"fc.weight": np.zeros(3)}).endswith("hyper-U-Net; left over: fc.weight.")
    swapped = {**STATE, "dconv_down2.0.weight": np.zeros((8, 4, 3, 3))}
    assert message(swapped).endswith("of the wrong shape: dconv_down2.0.weight (8, 4, 3, 3) for (8, 8, 3, 3).")
    everything = message({"fc.weight": np.zeros(3)})
    assert "missing: dconv_down1.0.weight, dconv_down1.0.bias, dconv_down1.3.weight" not in everything
    assert re.search(r"missing: .* and \d+ more; left over: fc\.weight\.$", everything)
    assert "unet.conv_last.hyperbias.bias" in message(
        {name: array for name, array in HYPER_STATE.items() if name != "unet.conv_last.hyperbias.bias"}
    )
    assert "got str for 'conv_last.bias'" in message({**STATE, "conv_last.bias": "x"})
    assert "missing" in message({})


def test_low_rank_heads_become_the_dense_ones_of_the_product():
    network, variables = random_model(UNet(2, norm="batch"), hyper_width=3, kind="low_rank", rank=2)
    dense, dense_variables = from_torch(to_torch(network, variables))
    assert dense.hyper.kind == "dense"
    low_rank, actual = (params["params"]["hyper"] for params in (variables, dense_variables))
    hidden = {name: layer for name, layer in low_rank.items() if name.startswith("hidden")}
    jax.tree.map(np.testing.assert_array_equal, {name: actual[name] for name in hidden}, hidden)
    for name in (".".join(path) for path, _ in dense.hyper.leaves):
        reduced, head = (jax.tree.map(np.asarray, low_rank[f"{part}:{name}"]) for part in ("reduced", "head"))
        expected = {"kernel": reduced["kernel"] @ head["kernel"], "bias": reduced["bias"] @ head["kernel"] + head["bias"]}
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), actual[f"head:{name}"], expected)


@pytest.mark.slow
def test_what_has_no_names_there_is_refused():
    with pytest.raises(InputError, match="one network .* got 2 of them"):
        to_torch(*random_model(UNet(2), members=np.asarray([[0.0], [1.0]])))
    with pytest.raises(InputError, match="must be a UNet, got Net"):
        to_torch(*random_model(Net("none")))
    with pytest.raises(InputError, match="must generate all of the convolutions and no more"):
        to_torch(*random_model(UNet(2), hyper_width=2, generated=lambda path: True))
    for options in ({"kind": "mixture"}, {"encoding": "circle"}):
        with pytest.raises(InputError, match=r'must have "dense" or "low_rank" heads and see "coefficients"'):
            to_torch(*random_model(UNet(2), hyper_width=2, **options))
