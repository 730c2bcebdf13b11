"""What is exported is run: by ONNX Runtime, by JAX in a process without us, by PyTorch; from the real command line, too."""

import re
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from helper import Net, load_fixture, run_python, select_prefix, small_networks, train_explorable
from random_models import GUIDE, python_blocks, random_model, reconstruct_batch, torch_unet

from hyperrecon_jax.commands import export as command
from hyperrecon_jax.models import export, model, tensor_files, unrolled
from hyperrecon_jax.models.unet import UNet
from hyperrecon_jax.models.unrolled import Unrolled
from hyperrecon_jax.physics import operators
from hyperrecon_jax.physics.net_input import PhysicsInput, physics_input
from hyperrecon_jax.runs import run_folder
from hyperrecon_jax.runs.experiment import build
from hyperrecon_jax.runs.load import load, read_config
from hyperrecon_jax.runtime.errors import InputError

pytestmark = pytest.mark.slow

Y = np.random.default_rng(0).normal(size=(3, 16, 24, 2)).astype(np.float32)
LAMS = np.asarray([[0.0], [0.3], [1.0]], np.float32)
MEMBERS = np.asarray([[0.0], [0.7]], np.float32)


def close(actual, expected):
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * max(1, np.abs(expected).max()))


def run_onnx(content, y):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(content)
    return session.run(["x_hat"], {"y": y.transpose(0, 3, 1, 2)})[0].transpose(0, 2, 3, 1)


def test_a_plain_network_is_the_model_at_its_lambda():
    hyper = random_model(UNet(2, norm="batch"), hyper_width=3)
    alone = export.plain(*hyper, [0.3])
    assert alone[0] == model.Model(UNet(2, norm="batch"))
    close(reconstruct_batch(*alone, LAMS, Y), reconstruct_batch(*hyper, [[0.3]] * 3, Y))  # whatever the lambda
    network, variables = random_model(UNet(2), members=MEMBERS)
    member = export.plain(network, variables, [0.7])[1]
    jax.tree.map(lambda leaf, leaves: np.testing.assert_array_equal(leaf, leaves[1]), member, variables)


@pytest.mark.parametrize(
    ("lam", "match"),
    [
        ([0.3, 0.2], "last axis of 1"),
        ([1.5], r"in \[0, 1\]"),
        ([[0.3]], "one lambda"),
        ([0.3], "of the ensemble, 0; 0.7; got"),
    ],
)
def test_a_lambda_that_cannot_be(lam, match):
    network = random_model(UNet(2), members=MEMBERS) if "ensemble" in match else random_model(UNet(2), hyper_width=3)
    with pytest.raises(InputError, match=match):
        export.plain(*network, lam)


def test_a_plain_model_has_no_lambda():
    with pytest.raises(InputError, match="plain already"):
        export.plain(*random_model(UNet(2)), [0.3])


@pytest.mark.parametrize(
    "options",
    [
        {"norm": "batch"},
        {"norm": "instance", "residual": False, "out_channels": 2},
        {"norm": "none", "normalize": True},
        {"normalize": True, "residual": False},
    ],
)
def test_onnx_runtime_reconstructs_as_we_do(options):
    onnx = pytest.importorskip("onnx")
    network = random_model(UNet(2, **options))
    content = export.onnx_bytes(*network, shape=(16, 24))
    speck = np.zeros_like(Y[:1])
    speck[:, 3, 5] = 0.4  # its scale is its maximum
    y = np.concatenate([Y, speck, np.zeros_like(speck)])
    reference = reconstruct_batch(*network, np.zeros((len(y), 0)), y)
    close(run_onnx(content, y), reference)
    close(run_onnx(content, y[:1]), reference[:1])
    graph = onnx.load_from_string(content)
    assert [opset.version for opset in graph.opset_import] == [18]
    sizes = [
        [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*graph.graph.input, *graph.graph.output)
    ]
    assert sizes == [["batch", 2, 16, 24], ["batch", network[0].main.out_channels, 16, 24]]


@pytest.mark.parametrize("normalize", [False, True])
def test_onnx_of_sides_that_cannot_be_halved(normalize):
    pytest.importorskip("onnx")
    network, y = random_model(UNet(2, normalize=normalize)), Y[:, :13, :22]
    close(run_onnx(export.onnx_bytes(*network, shape=(13, 22)), y), reconstruct_batch(*network, np.zeros((3, 0)), y))


def test_onnx_of_what_it_cannot_hold(monkeypatch):
    for network in (
        random_model(UNet(2), hyper_width=3),
        random_model(UNet(2), members=MEMBERS),
        random_model(Net("none")),
    ):
        with pytest.raises(InputError, match="must be a plain U-Net"):
            export.onnx_bytes(*network, shape=(16, 24))
    with pytest.raises(InputError, match="ONNX runtimes have no complex FFT for the unrolled network"):
        export.onnx_bytes(model.Model(Unrolled(2)), {}, shape=(16, 24))
    with pytest.raises(InputError, match=r"two sides above 0, got \(16, 0\)"):
        export.onnx_bytes(*random_model(UNet(2)), shape=(16, 0))
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match="onnx, which is not installed"):
        export.onnx_bytes(*random_model(UNet(2)), shape=(16, 24))


@pytest.mark.parametrize(
    "options", [{"hyper_width": 3}, {"members": MEMBERS}, {}], ids=["hypernetwork", "ensemble", "plain"]
)
def test_a_program_of_the_whole_runs_for_any_batch(options):
    network = random_model(UNet(2, norm="batch"), **options)
    loaded = jax.export.deserialize(export.serialized(*network, shape=(16, 24)))
    assert loaded.platforms == ("cpu", "cuda", "tpu")
    arguments = (Y, LAMS) if options else (Y,)
    reference = reconstruct_batch(*network, LAMS, Y)
    close(np.asarray(loaded.call(*arguments)), reference)
    close(np.asarray(loaded.call(*(a[2:] for a in arguments))), reference[2:])
    assert np.abs(reference[0] - reference[1]).max() > 0.1


def complex_normal(*shape):
    rng = np.random.default_rng(0)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


@pytest.mark.parametrize("coils", [0, 2])
def test_a_program_of_an_unrolled_network_finds_the_masks_in_the_kspace(coils, monkeypatch):
    monkeypatch.setattr(unrolled, "UNet", lambda *, out_channels, norm, name, **_: Net(norm, out_channels, name=name))
    example = PhysicsInput(np.zeros((16, 24, 2)), np.zeros((16, 24, 1)))
    network = random_model(Unrolled(2, 2), example=example, hyper_width=3, num_conditions=2, encoding="circle")
    network = network[0], model.at_condition(network[1], [0.2, 0.7])
    masks = np.random.default_rng(1).random((3, 16, 24)) < 0.5
    program = jax.export.deserialize(export.serialized(*network, shape=(16, 24), coils=coils))
    if coils:
        kspace, maps = masks[:, None] * complex_normal(3, coils, 16, 24), complex_normal(3, coils, 16, 24)
        x_hat = program.call(kspace, maps, LAMS)
        inputs = [physics_input(operators.sense(m, s), y) for m, s, y in zip(masks, maps, kspace, strict=True)]
    else:
        kspace = masks * complex_normal(3, 16, 24)
        x_hat = program.call(kspace, LAMS)
        inputs = [physics_input(operators.csmri(m), y[..., None]) for m, y in zip(masks, kspace, strict=True)]
    close(np.asarray(x_hat), reconstruct_batch(*network, LAMS, inputs))


@pytest.mark.parametrize("options", [{}, {"encoding": "circle"}, {"kind": "mixture"}])
def test_a_plain_network_is_the_model_at_its_condition(options):
    network, variables = random_model(Net("none"), hyper_width=3, num_conditions=2, **options)
    variables = model.at_condition(variables, [0.2, 0.7])
    assert export.num_terms(network, variables) == 2
    alone = export.plain(network, variables, [0.3])
    close(reconstruct_batch(*alone, LAMS[:1], Y[:1]), reconstruct_batch(network, variables, [[0.3]], Y[:1]))
    other = model.at_condition(variables, [0.9, 0.1])
    assert (
        np.abs(reconstruct_batch(network, other, [[0.3]], Y[:1]) - reconstruct_batch(*alone, LAMS[:1], Y[:1])).max() > 1e-3
    )


def test_a_program_of_sides_that_cannot_be_halved():
    network = random_model(UNet(2), hyper_width=3)
    loaded = jax.export.deserialize(export.serialized(*network, shape=(16, 20)))
    y = Y[:1, :16, :20]
    close(np.asarray(loaded.call(y, LAMS[:1])), reconstruct_batch(*network, LAMS[:1], y))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A HyperRecon trained next to nothing, and where files go."""
    return train_explorable(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def unrolled_folder(tmp_path_factory):
    """An unrolled network of small networks in place of U-Nets."""
    with small_networks():
        return train_explorable(tmp_path_factory.mktemp("unrolled"), network="unrolled", iterations=2)


@pytest.fixture(scope="module")
def at_three_tenths(folder):
    """Two inputs of the run's size, and what its model makes of them at lambda = 0.3."""
    network, variables = load(folder / "run")
    y = Y[:2, :, :16]
    return y, reconstruct_batch(network, variables, [[0.3]] * 2, y)


LOADED = """
import {imports}
import numpy, sys
y = numpy.load("y.npy"); lam = numpy.full((len(y), 1), 0.3, numpy.float32)
{line}
assert "hyperrecon_jax" not in sys.modules or {ours}
numpy.save("x_hat.npy", x_hat)
"""


@pytest.mark.parametrize(
    ("args", "imports"),
    [
        (("--lam", "0.3", "--out", "deep/unet.onnx"), "onnxruntime"),
        (("--out", "model.jaxexport"), "jax.export"),
        (("--lam", "0.3", "--out", "unet.npz", "--names", "ours"), "flax; from hyperrecon_jax import UNet"),
    ],
)
def test_the_command_ends_with_a_line_that_loads_the_file(folder, at_three_tenths, args, imports):
    result = run_python("-m", "bin.export", "--run", "run", *args, cwd=folder)
    assert result.returncode == 0, result.stderr
    summary, line = result.stdout.splitlines()
    is_whole = "--lam" not in args
    assert re.match(
        rf"\S+ holds {'the whole model' if is_whole else 'the U-Net of lambda = 0.3'}, \S+ MB\. To load it:", summary
    )
    y, reference = at_three_tenths
    is_onnx, is_flax = "onnx" in imports, "flax" in imports
    np.save(folder / "y.npy", y.transpose(0, 3, 1, 2) if is_onnx else y[0] if is_flax else y)
    (folder / "loading.py").write_text(LOADED.format(imports=imports, line=line.strip(), ours=is_flax))
    loaded = run_python("loading.py", cwd=folder)
    assert loaded.returncode == 0, loaded.stderr
    x_hat = np.load(folder / "x_hat.npy")
    x_hat = x_hat.transpose(0, 2, 3, 1) if is_onnx else x_hat[None] if is_flax else x_hat
    close(x_hat, reference[: len(x_hat)])


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".npz"])
def test_pytorch_loads_a_lambda_of_the_run(folder, at_three_tenths, suffix):
    torch = pytest.importorskip("torch")
    import safetensors.torch

    lines = []
    command.export_run(folder / "run", folder / f"state{suffix}", lam=[0.3], say=lines.append)
    assert "divide the input by the 99th percentile" in lines[1]
    network = torch_unet(2, norm="instance", normalize=True)
    exec(lines[-1].strip(), {"network": network, "torch": torch, "numpy": np, "safetensors": safetensors})
    y, reference = at_three_tenths
    with torch.no_grad():
        x_hat = network(torch.tensor(y.transpose(0, 3, 1, 2))).numpy().transpose(0, 2, 3, 1)
    close(x_hat, reference)


def test_the_whole_hyper_unet_as_tensors(folder):
    command.export_run(folder / "run", folder / "whole.npz", say=lambda _: None)
    state = tensor_files.read(folder / "whole.npz")
    assert state["hnet.lin1.weight"].shape == (3, 2)
    assert state["unet.conv_last.hyperkernel.weight"].shape == (2, 3)


def test_a_run_of_one_lambda(folder, monkeypatch):
    config = read_config(folder / "run").to_dict()
    config["lam"] |= {"sampling": "constant", "value": (0.4,)}
    config["model"] |= {"hyper_width": 0}
    experiment = build(config)
    variables = {"params": experiment.state.params, "batch_stats": experiment.state.batch_stats}
    monkeypatch.setattr(command, "load", lambda folder, **options: (experiment.setup.model, variables))
    (folder / "one" / run_folder.CHECKPOINTS).mkdir(parents=True)
    run_folder.write_json(folder / "one" / run_folder.CONFIG, experiment.config.to_dict())
    lines = []
    command.export_run(folder / "one", folder / "one.onnx", say=lines.append)
    assert "the U-Net of lambda = 0.4" in lines[0]
    assert len((folder / "one.onnx").read_bytes()) > 4000
    with pytest.raises(InputError, match="`lam` must be left out: .*one holds one U-Net, of lambda = 0.4"):
        command.export_run(folder / "one", folder / "one.onnx", lam=[0.4])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"out": "unet.h5"}, r"`out` must end with one of \.onnx, \.jaxexport, \.run, \.npz"),
        ({"out": "unet.pt", "names": "ours"}, '`names` "ours" goes with a .npz file'),
        ({"out": "unet.npz", "names": "mine"}, "`names` must be one of torch, ours"),
        ({"out": "unet.onnx"}, "`lam` must name the lambda of the U-Net"),
        ({"out": "unet.npz", "names": "ours"}, "`lam` must name the lambda of the U-Net"),
        ({"out": "unet.onnx", "lam": [2.0]}, r"`lam` must be in \[0, 1\]"),
        ({"out": "folder.npz"}, "must be a file, got the folder"),
        ({"out": "file/unet.onnx", "lam": [0.3]}, "file cannot be written: .*file is not a folder"),
    ],
)
def test_mistakes(folder, tmp_path, options, match):
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "file").touch()
    out = tmp_path / options["out"]
    options = {name: value for name, value in options.items() if name != "out"}
    with pytest.raises(InputError, match=match):
        command.export_run(folder / "run", out, **options)
    assert not out.is_file()


def test_a_package_that_is_missing_is_told_before_the_run_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: None)
    for suffix, package, name in (
        (".onnx", "onnx", "hyperrecon_jax[export]"),
        (".pt", "torch", "torch"),
        (".safetensors", "safetensors", "hyperrecon_jax[export]"),
        (".jaxexport", "flatbuffers", "hyperrecon_jax[export]"),
    ):
        message = f"needs the package {package}, which is not installed: pip install {re.escape(name)}$"
        with pytest.raises(InputError, match=message):
            command.export_run(tmp_path / "no run", tmp_path / f"unet{suffix}", lam=[0.3])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "Say what to export and to where: --run RUN --out FILE"),
        (("--run", "nothing", "--out", "a.npz"), "nothing/config.json cannot be read"),
        (("--run", "run", "--out", "a.onnx", "--lam", "x"), "--lam must be numbers, got x"),
        (("--run", "run", "--out", "a.onnx", "--lam", "0.3,1"), "--lam must have a last axis of 1"),
    ],
)
def test_mistakes_on_the_command_line(folder, args, message):
    result = run_python("-m", "bin.export", *args, cwd=folder)
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_what_the_guide_says(tmp_path, folder, unrolled_folder, monkeypatch, capsys):
    """Its commands and its Python run one after the other, at a size that takes seconds."""
    pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "unet").symlink_to(folder / "run")
    (tmp_path / "runs" / "quickstart").symlink_to(unrolled_folder / "run")
    monkeypatch.setattr(unrolled, "UNet", lambda *, out_channels, norm, name, **_: Net(norm, out_channels, name=name))
    tensor_files.write("authors.pth.tar", select_prefix(load_fixture("hyperunet_h8_d4_k2"), "state/"))
    commands = re.findall(
        r"^    python -m bin\.export --run (\S+)(?: --lam (\S+))? --out (\S+)(?: --names (\S+))?$", GUIDE, re.M
    )
    assert len(commands) == GUIDE.count("    python -m bin.export") == 4
    for name, lam, out, names in commands:
        lam = [float(lam)] if lam else None
        command.export_run(Path(name), Path(out), lam=lam, names=names or "torch", say=lambda _: None)
    namespace = {}
    for block in python_blocks():
        exec(block.replace("96", "16").replace("UNet(16,", "UNet(2,"), namespace)
    assert capsys.readouterr().out.splitlines() == [
        "8 batch 4 (16, 16, 1)",
        "torch.Size([1, 1, 16, 16])",
        "(1, 1, 16, 16)",
        "(3, 16, 16, 1)",
        "(16, 16, 1)",
        "100 (1, 8, 1, 1)",
    ]
