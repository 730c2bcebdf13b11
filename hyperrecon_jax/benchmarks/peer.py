"""The training step written plainly in PyTorch: hypernetwork, U-Net with grouped convolutions, MAE and SSIM, Adam.

It trains what `networks.supervised_task` trains, starting from the library's variables. Only `against_peer.py` imports this
file, which needs PyTorch. `start_process` runs the step as PyTorch's users do, in a process without any settings for JAX.
"""

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Tree = Any
LEVELS = 4


class Peer(nn.Module):
    """x_hat = M[H(lambda)](y) for a batch, `(b, 2, h, w)` and `(b, K-1)` -> `(b, 1, h, w)`, with the library's weights."""

    def __init__(self, params: Tree, norm: str, width: int):
        super().__init__()
        hyper, norms = params["hyper"], params["main"]
        self.norm = norm
        layers = [f"{block}_conv{i}" for block in _blocks() for i in (0, 1)]
        inputs = {f"up{level}_conv0": 2 * width for level in range(1, LEVELS)} | {"down1_conv0": 2}
        self.shapes = {name: (width, inputs.get(name, width), 3) for name in layers} | {"head": (1, width, 1)}
        hidden = sorted(name for name in hyper if name.startswith("hidden"))
        self.trunk = nn.Sequential(*(part for name in hidden for part in (_linear(hyper[name]), nn.LeakyReLU(0.01))))
        self.kernels = nn.ModuleDict(
            {name: _linear(_as_oihw(hyper[f"head:{name}.kernel"], shape)) for name, shape in self.shapes.items()}
        )
        self.biases = nn.ModuleDict({name: _linear(hyper[f"head:{name}.bias"]) for name in self.shapes})
        norm_leaves = {name: norms[name.replace("conv", "norm")] for name in layers}
        self.scales = nn.ParameterDict({name: _tensor(leaves["scale"]) for name, leaves in norm_leaves.items()})
        self.shifts = nn.ParameterDict({name: _tensor(leaves["bias"]) for name, leaves in norm_leaves.items()})
        if norm == "batch":
            for name in layers:
                self.register_buffer(f"mean_{name}", torch.zeros(width))
                self.register_buffer(f"var_{name}", torch.ones(width))

    def forward(self, y: Tensor, lam: Tensor) -> Tensor:
        h = self.trunk(torch.cat([1 - lam, lam], 1))
        skips = []
        x = y
        for level in range(1, LEVELS):
            x = self._block(x, h, f"down{level}")
            skips.append(x)
            x = F.max_pool2d(x, 2)
        x = self._block(x, h, f"down{LEVELS}")
        for level in range(LEVELS - 1, 0, -1):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
            x = self._block(torch.cat([x, skips.pop()], 1), h, f"up{level}")
        return self._conv(x, h, "head") + y.square().sum(1, keepdim=True).clamp_min(1e-24).sqrt()

    def _block(self, x: Tensor, h: Tensor, block: str) -> Tensor:
        for name in (f"{block}_conv0", f"{block}_conv1"):
            x = self._conv(x, h, name)
            scale, shift = self.scales[name], self.shifts[name]
            if self.norm == "instance":
                x = F.instance_norm(x, weight=scale, bias=shift)
            else:
                running = getattr(self, f"mean_{name}"), getattr(self, f"var_{name}")
                x = F.batch_norm(x, *running, scale, shift, training=True)
            x = F.relu(x)
        return x

    def _conv(self, x: Tensor, h: Tensor, name: str) -> Tensor:
        b, c_in, height, width = x.shape
        c_out, _, side = self.shapes[name]
        kernel = self.kernels[name](h).reshape(b * c_out, c_in, side, side)
        bias = self.biases[name](h).reshape(-1)
        y = F.conv2d(x.reshape(1, b * c_in, height, width), kernel, bias, padding=side // 2, groups=b)
        return y.reshape(b, c_out, height, width)


def make_step(
    params: Tree,
    mask: np.ndarray,
    images: np.ndarray,
    lams: np.ndarray,
    *,
    norm: str,
    learning_rate: float,
    compiled: bool = False,
    bfloat16: bool = False,
) -> Callable[[], float]:
    """Return a function that takes the next training step on one batch at each call and returns the loss.

    It runs on a GPU if PyTorch sees one.

    Args:
        params: the library's parameters of the model of `networks.supervised_task`.
        mask: `(h, w)`, where k-space is sampled.
        images: `(b, h, w, 1)`.
        lams: `(b, 1)`.
        norm: "instance" or "batch".
        learning_rate: Adam's.
        compiled: compile the loss by `torch.compile`.
        bfloat16: run the network in bfloat16, by autocast.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    width = params["hyper"]["head:down1_conv0.bias"]["bias"].shape[0]
    model = Peer(params, norm, width).to(device)
    optimizer = torch.optim.Adam(model.parameters(), learning_rate, fused=True)
    x, sampled, lam = (_tensor(a).to(device) for a in (images.transpose(0, 3, 1, 2), mask, lams))
    window = torch.exp(-0.5 * ((torch.arange(11, device=device) - 5) / 1.5).square())
    window = window / window.sum()

    def batch_loss() -> Tensor:
        y = torch.fft.ifft2(sampled * torch.fft.fft2(x, norm="ortho"), norm="ortho")
        with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
            x_hat = model(torch.cat([y.real, y.imag], 1), lam)
        x_hat = x_hat.float()
        mae = (x_hat - x).abs().mean((1, 2, 3))
        return ((1 - lam[:, 0]) * mae + lam[:, 0] * (1 - _ssim(x_hat, x, window))).mean()

    loss_function = torch.compile(batch_loss) if compiled else batch_loss

    def step() -> float:
        loss = loss_function()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()
        return float(loss.detach())

    return step


def start_process(**settings: Any) -> Callable[[], float]:
    """Like `make_step`, but the steps run in a new process, which ends with this one. Arrays must be NumPy's."""
    parent_end, child_end = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    context.Process(target=_serve, args=(child_end, settings), daemon=True).start()
    child_end.close()

    def step() -> float:
        parent_end.send(None)
        return parent_end.recv()

    return step


def _serve(connection: Connection, settings: dict[str, Any]) -> None:
    """Take a step for each message, and send its loss back."""
    step = make_step(**settings)
    while True:
        try:
            connection.recv()
        except EOFError:
            return
        connection.send(step())


def _ssim(a: Tensor, b: Tensor, window: Tensor) -> Tensor:
    """The same as `losses.ssim`, for images `(b, 1, h, w)`."""

    def blur(image: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(image, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))

    c1, c2 = 0.01**2, 0.03**2
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a * mean_a, blur(b * b) - mean_b * mean_b
    covariance = blur(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + c1) / (mean_a * mean_a + mean_b * mean_b + c1)
    return (luminance * (2 * covariance + c2) / (var_a + var_b + c2)).mean((1, 2, 3))


def _blocks() -> list[str]:
    return [f"down{level}" for level in range(1, LEVELS + 1)] + [f"up{level}" for level in range(LEVELS - 1, 0, -1)]


def _tensor(array: Any) -> Tensor:
    return torch.tensor(np.asarray(array))


def _linear(leaves: Tree) -> nn.Linear:
    """Convert a layer of the library, whose kernel is `(in, out)`."""
    inputs, outputs = leaves["kernel"].shape
    layer = nn.Linear(inputs, outputs)
    with torch.no_grad():
        layer.weight.copy_(_tensor(leaves["kernel"]).T)
        layer.bias.copy_(_tensor(leaves["bias"]))
    return layer


def _as_oihw(leaves: Tree, shape: tuple[int, int, int]) -> Tree:
    """Reorder a head that generates a flat HWIO kernel (the library's) so that it generates a flat OIHW kernel."""
    c_out, c_in, side = shape

    def reorder(a: Any) -> np.ndarray:
        hwio = np.asarray(a).reshape(-1, side, side, c_in, c_out)
        return np.moveaxis(hwio, (3, 4), (2, 1)).reshape(-1, side**2 * c_in * c_out)

    return {"kernel": reorder(leaves["kernel"]), "bias": reorder(leaves["bias"])[0]}
