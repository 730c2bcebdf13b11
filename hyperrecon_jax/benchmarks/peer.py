"""The training step written plainly in PyTorch: hypernetwork, network with grouped convolutions, MAE and SSIM, Adam.

It trains what `networks.supervised_task` and `supervised_unrolled_task` train, starting from the library's variables. Only
`against_peer.py` imports this file, which needs PyTorch. `start_process` runs the step as PyTorch's users do, in a process
without any settings for JAX.
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
    """x_hat = M[H(lambda)](y) for a batch, with the library's weights: the U-Net, or the unrolled network of several."""

    def __init__(self, params: Tree, norm: str):
        super().__init__()
        self.is_unrolled = "iterations" in params["main"]
        prefix = "iterations.unet." if self.is_unrolled else ""
        hyper, norms = params["hyper"], params["main"]
        norms = norms["iterations"]["unet"] if self.is_unrolled else norms
        self.iterations = len(norms["down1_norm0"]["scale"]) if self.is_unrolled else 1
        width = np.shape(norms["down1_norm0"]["scale"])[-1]
        layers = [f"{block}_conv{i}" for block in _blocks() for i in (0, 1)]
        inputs = {f"up{level}_conv0": 2 * width for level in range(1, LEVELS)} | {"down1_conv0": 2}
        self.norm = norm
        self.shapes = {name: (width, inputs.get(name, width), 3) for name in layers}
        self.shapes["head"] = (2 if self.is_unrolled else 1, width, 1)
        hidden = sorted(name for name in hyper if name.startswith("hidden"))
        self.trunk = nn.Sequential(*(part for name in hidden for part in (_linear(hyper[name]), nn.LeakyReLU(0.01))))
        self.kernels = nn.ModuleDict(
            {name: _linear(_as_oihw(hyper[f"head:{prefix}{name}.kernel"], shape)) for name, shape in self.shapes.items()}
        )
        self.biases = nn.ModuleDict({name: _linear(hyper[f"head:{prefix}{name}.bias"]) for name in self.shapes})
        self.log_weight = _linear(hyper["head:iterations.log_weight"]) if self.is_unrolled else None
        norm_leaves = {name: norms[name.replace("conv", "norm")] for name in layers}
        shape = (self.iterations, width)
        self.scales = nn.ParameterDict({k: _tensor(leaves["scale"]).reshape(shape) for k, leaves in norm_leaves.items()})
        self.shifts = nn.ParameterDict({k: _tensor(leaves["bias"]).reshape(shape) for k, leaves in norm_leaves.items()})
        for name in layers if norm == "batch" else ():
            self.register_buffer(f"mean_{name}", torch.zeros(shape))
            self.register_buffer(f"var_{name}", torch.ones(shape))

    def forward(self, kspace: Tensor, mask: Tensor, lam: Tensor) -> Tensor:
        """Reconstruct `(b, 1, h, w)` from complex k-space `(b, h, w)`, its mask `(h, w)` and lambda `(b, 1)`."""
        h = self.trunk(torch.cat([1 - lam, lam], 1))
        theta = {name: (self.kernels[name](h), self.biases[name](h)) for name in self.shapes}
        image = _channels(torch.fft.ifft2(kspace, norm="ortho"))
        if self.log_weight is None:
            return self._unet(image, theta, 0) + _magnitude(image)
        scale = torch.quantile(_magnitude(image).flatten(1), 0.99, dim=1)[:, None, None, None]
        z, y = image / scale, kspace / scale[:, 0]
        weights = self.log_weight(h).float().exp()
        for i in range(self.iterations):
            difference = mask * (y - torch.fft.fft2(torch.complex(z[:, 0], z[:, 1]), norm="ortho"))
            step = _channels(torch.fft.ifft2(difference, norm="ortho")) / (1 + weights[:, i, None, None, None])
            u = z + step
            z = u + self._unet(u, theta, i).float()
        return _magnitude(z) * scale

    def _unet(self, x: Tensor, theta: dict[str, tuple[Tensor, Tensor]], iteration: int) -> Tensor:
        skips = []
        for level in range(1, LEVELS):
            x = self._block(x, theta, f"down{level}", iteration)
            skips.append(x)
            x = F.max_pool2d(x, 2)
        x = self._block(x, theta, f"down{LEVELS}", iteration)
        for level in range(LEVELS - 1, 0, -1):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
            x = self._block(torch.cat([x, skips.pop()], 1), theta, f"up{level}", iteration)
        return self._conv(x, theta, "head", iteration)

    def _block(self, x: Tensor, theta: dict[str, tuple[Tensor, Tensor]], block: str, iteration: int) -> Tensor:
        for name in (f"{block}_conv0", f"{block}_conv1"):
            x = self._conv(x, theta, name, iteration)
            scale, shift = self.scales[name][iteration], self.shifts[name][iteration]
            if self.norm == "instance":
                x = F.instance_norm(x, weight=scale, bias=shift)
            else:
                running = getattr(self, f"mean_{name}")[iteration], getattr(self, f"var_{name}")[iteration]
                x = F.batch_norm(x, *running, scale, shift, training=True)
            x = F.relu(x)
        return x

    def _conv(self, x: Tensor, theta: dict[str, tuple[Tensor, Tensor]], name: str, iteration: int) -> Tensor:
        b, c_in, height, width = x.shape
        c_out, _, side = self.shapes[name]
        kernels, biases = (leaf.reshape(b, self.iterations, -1)[:, iteration] for leaf in theta[name])
        kernel = kernels.reshape(b * c_out, c_in, side, side)
        y = F.conv2d(x.reshape(1, b * c_in, height, width), kernel, biases.reshape(-1), padding=side // 2, groups=b)
        return y.reshape(b, c_out, height, width)


def _channels(image: Tensor) -> Tensor:
    """Complex `(b, h, w)` as `(b, 2, h, w)`."""
    return torch.stack([image.real, image.imag], 1)


def _magnitude(image: Tensor) -> Tensor:
    """The modulus of `(b, 2, h, w)`, `(b, 1, h, w)`."""
    return image.square().sum(1, keepdim=True).clamp_min(1e-24).sqrt()


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
        params: the library's parameters of the model of one of these tasks.
        mask: `(h, w)`, where k-space is sampled.
        images: `(b, h, w, 1)`.
        lams: `(b, 1)`.
        norm: "instance" or "batch".
        learning_rate: Adam's.
        compiled: compile the loss by `torch.compile`.
        bfloat16: run the network in bfloat16, by autocast.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = Peer(params, norm).to(device)
    optimizer = torch.optim.Adam(model.parameters(), learning_rate, fused=True)
    x, sampled, lam = (_tensor(a).to(device) for a in (images.transpose(0, 3, 1, 2), mask, lams))
    window = torch.exp(-0.5 * ((torch.arange(11, device=device) - 5) / 1.5).square())
    window = window / window.sum()

    def batch_loss() -> Tensor:
        kspace = sampled * torch.fft.fft2(x[:, 0], norm="ortho")
        with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
            x_hat = model(kspace, sampled, lam)
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
    """Reorder a head that generates flat HWIO kernels (the library's) so that it generates flat OIHW kernels."""
    c_out, c_in, side = shape

    def reorder(a: Any) -> np.ndarray:
        hwio = np.asarray(a).reshape(-1, side, side, c_in, c_out)
        return np.moveaxis(hwio, (3, 4), (2, 1)).reshape(np.shape(a))

    return {"kernel": reorder(leaves["kernel"]), "bias": reorder(leaves["bias"])}
