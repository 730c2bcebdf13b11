"""The two primitives of `conv.py` as kernels for NVIDIA GPUs (Pallas, Triton): activations cross the memory bus about once.

    conv: x (g, n, h, w, c_in), kernel (g, kh, kw, c_in, c_out) -> (g, n, h, w, c_out), SAME zero padding, odd sides
    correlate: x (g, n, h, w, c_in), ct (g, n, h, w, c_out) -> (g, kh, kw, c_in, c_out), float32

At the U-Net's widths the memory traffic limits a layer, not the arithmetic. So both kernels walk down the image and keep
on the chip what they still need of it:

- `conv`: a program computes a strip of `rows` by `columns` pixels. It reads a row of x, once for each of the kw shifts; a
  cache serves all reads but the first. It multiplies the row with all kh * kw taps, which stay on the chip, and adds the
  products to kh rows of the result at once. The kh - 1 unfinished rows are float32 accumulators, carried to the next row.
  Neighbouring strips read kh - 1 rows of a strip again.
- `correlate`: a program reads a strip of rows of x, full width. All taps together are ONE product over a run of pixels: its
  left factor is x under the kw column shifts side by side, its right factor is ct under the kh row shifts. Each program
  writes its own partial sum. The partial sums are added afterwards, always in the same order, without atomics. The
  border of zeros is masked: no padded copy is written or read.

Triton works on powers of two, and a product needs at least 16. Images, channels and kernels may have any size: a program
masks what is missing, and nothing is padded in memory (2 channels cost the arithmetic of 16 and the traffic of 2). The taps
of a program must fit in shared memory. So wide layers are cut into blocks of output channels, each of which reads x again.
`conv` refuses a layer that fits in no block (by default above 128 input channels of bfloat16 and 64 of float32, 3x3).
Products of float32 are tf32, unless `precision` is HIGHEST, which does not use the tensor cores and is slow; sums are
float32.

NOT MEASURED YET. The kernels agree with `conv.py`'s loop in interpret mode, and they compile to sm_90a on a machine without
a GPU: tensor core products, vector loads, and no spilled registers, except with HIGHEST. The library does not choose them.
Time them beside the other ways first (`python -m bin.bench --suite conv` on a GPU), and tune the fields of `Tiling`.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from hyperrecon_jax.runtime.errors import InputError

_MIN_LANES = 16  # smallest side of a product on the tensor cores
_SHARED_MEMORY = 224 * 1024  # bytes for each multiprocessor of an H100


@dataclass(frozen=True)
class Tiling:
    """The sizes of a program, and two settings of Triton."""

    columns: int = 64  # pixels of a row, a power of two
    rows: int = 16  # of a strip
    warps: int = 4
    stages: int = 2  # iterations over rows whose loads are in flight; loads bypass the L1 cache unless this is 1


CONV = Tiling()
CORRELATE = Tiling(warps=8)


@partial(jax.jit, static_argnames=("precision", "tiling", "interpret"))
def conv(x, kernel, *, precision: lax.Precision | None = None, tiling: Tiling = CONV, interpret: bool = False) -> jax.Array:
    """Convolve the n images of each group with the kernel of the group, as `conv.py` does; the result has the type of x.

    Raises:
        InputError: if even the taps of 16 output channels do not fit on the chip.
    """
    groups, n, h, w, c_in = x.shape
    kh, kw, _, c_out = kernel.shape[1:]
    columns, rows = min(tiling.columns, _lanes(w)), min(tiling.rows, h)
    lanes_in, lanes_out = _lanes(c_in), min(_lanes(c_out), 64)

    def shared_bytes(lanes):  # of the taps and of the pixels in flight
        return (kh * kw * lanes + kw * tiling.stages * columns) * lanes_in * x.dtype.itemsize

    # half of the memory, so that two programs can share a multiprocessor
    while lanes_out > _MIN_LANES and shared_bytes(lanes_out) > _SHARED_MEMORY // 2:
        lanes_out //= 2
    if shared_bytes(lanes_out) > _SHARED_MEMORY:
        raise InputError(f"`kernel` has too many taps or input channels, got {kernel.shape[1:]} in {x.dtype}.")
    return pl.pallas_call(
        partial(_conv_program, rows=rows, tile=(columns, lanes_in, lanes_out), precision=precision),
        out_shape=jax.ShapeDtypeStruct((groups, n, h, w, c_out), x.dtype),
        # the first index runs fastest, so that programs which share rows of x run at the same time
        grid=(pl.cdiv(c_out, lanes_out), pl.cdiv(w, columns), pl.cdiv(h, rows), n, groups),
        in_specs=[_image_block(h, w, c_in), pl.BlockSpec((None, kh, kw, c_in, c_out), lambda *at: (at[-1], 0, 0, 0, 0))],
        out_specs=_image_block(h, w, c_out),
        compiler_params=triton.CompilerParams(num_warps=tiling.warps, num_stages=tiling.stages),
        interpret=interpret,
        name="conv_per_group",
    )(x, kernel.astype(x.dtype))


def _conv_program(x, kernel, y, *, rows, tile, precision):
    h, w, c_in = x.shape
    kh, kw, _, c_out = kernel.shape
    columns, lanes_in, lanes_out = tile
    first = pl.program_id(2) * rows
    column = pl.program_id(1) * columns + jnp.arange(columns)[:, None]
    channels_in, channels_out = jnp.arange(lanes_in), pl.program_id(0) * lanes_out + jnp.arange(lanes_out)[None, :]
    empty = jnp.zeros((columns, lanes_out), jnp.float32)

    def tap(i, j):
        mask = (channels_in[:, None] < c_in) & (channels_out < c_out)
        return _load(kernel, (i, j, channels_in[:, None], channels_out), mask)

    taps = [[tap(i, j) for j in range(kw)] for i in range(kh)]

    def add_row(i, unfinished):
        row = first + i - kh // 2
        inside = (row >= 0) & (row < h) & (channels_in[None, :] < c_in)
        shifted = [column + j - kw // 2 for j in range(kw)]
        images = [_load(x, (row, c, channels_in[None, :]), inside & (c >= 0) & (c < w)) for c in shifted]
        sums = [*unfinished, empty]  # rows of y; this row of x is the last that the first of them needs
        for a in range(kh):
            for image, weights in zip(images, taps[kh - 1 - a], strict=True):
                sums[a] += _contract(image, weights, 1, precision)
        y_row = row - kh // 2
        mask = (y_row >= first) & (y_row < h) & (column < w) & (channels_out < c_out)
        triton.store(y.at[y_row, column, channels_out], sums[0].astype(y.dtype), mask=mask)
        return tuple(sums[1:])

    lax.fori_loop(0, rows + kh - 1, add_row, (empty,) * (kh - 1))


@partial(jax.jit, static_argnames=("sides", "precision", "tiling", "interpret"))
def correlate(
    x,
    ct,
    *,
    sides: tuple[int, int],
    precision: lax.Precision | None = None,
    tiling: Tiling = CORRELATE,
    interpret: bool = False,
) -> jax.Array:
    """The gradient in the kernel, whose `sides` are (kh, kw), for `ct`, a cotangent of the result of `conv`."""
    groups, n, h, w, c_in = x.shape
    c_out = ct.shape[-1]
    kh, kw = sides
    lanes = [min(pl.next_power_of_2(c), max(1, 128 // pl.next_power_of_2(k))) for c, k in ((c_in, kw), (c_out, kh))]
    tile = min(tiling.columns, _lanes(w)), *lanes
    strips = max(1, round(h / tiling.rows))
    sum_block = (None, None, None, kh, kw, c_in, c_out)
    partial_sums = pl.pallas_call(
        partial(_correlate_program, rows=pl.cdiv(h, strips), tile=tile, precision=precision),
        out_shape=jax.ShapeDtypeStruct((groups, n, strips, kh, kw, c_in, c_out), jnp.float32),
        grid=(pl.cdiv(c_in, lanes[0]) * pl.cdiv(c_out, lanes[1]), strips, n, groups),
        in_specs=[_image_block(h, w, c_in), _image_block(h, w, c_out)],
        out_specs=pl.BlockSpec(sum_block, lambda _, strip, *at: (*at[::-1], strip, 0, 0, 0, 0)),
        compiler_params=triton.CompilerParams(num_warps=tiling.warps, num_stages=tiling.stages),
        interpret=interpret,
        name="correlate_per_group",
    )(x, ct)
    return partial_sums.sum((1, 2))


def _correlate_program(x, ct, partial_sum, *, rows, tile, precision):
    (h, w, c_in), c_out = x.shape, ct.shape[-1]
    kh, kw = partial_sum.shape[:2]
    columns, lanes_in, lanes_out = tile
    blocks_in, runs_per_row = pl.cdiv(c_in, lanes_in), pl.cdiv(w, columns)
    first = pl.program_id(1) * rows
    j, channels_in = _tap_and_channel(kw, lanes_in, lax.rem(pl.program_id(0), blocks_in))
    i, channels_out = _tap_and_channel(kh, lanes_out, lax.div(pl.program_id(0), blocks_in))
    image_mask, ct_mask = (j < kw) & (channels_in < c_in), (i < kh) & (channels_out < c_out)

    def add_run(run, total):
        row, start = first + lax.div(run, runs_per_row), lax.rem(run, runs_per_row) * columns
        column = start + jnp.arange(columns)[:, None]
        c, r = column + j - kw // 2, row - i + kh // 2  # column of the image, row of ct
        image = _load(x, (row, c, channels_in), image_mask & (row < h) & (c >= 0) & (c < w))
        cotangent = _load(ct, (r, column, channels_out), ct_mask & (r >= 0) & (r < h) & (column < w))
        return total + _contract(image, cotangent, 0, precision)

    total = lax.fori_loop(0, rows * runs_per_row, add_run, jnp.zeros((j.size, i.size), jnp.float32))
    triton.store(partial_sum.at[i, j.T, channels_in.T, channels_out], total, mask=image_mask.T & ct_mask)


def _tap_and_channel(taps, lanes, block):
    """Return the tap and the channel of each lane of a row: the channels of one block, repeated for every tap."""
    lane = jnp.arange(max(_MIN_LANES, pl.next_power_of_2(taps) * lanes))[None, :]
    return lax.div(lane, lanes), block * lanes + lax.rem(lane, lanes)


def _lanes(size: int) -> int:
    return max(_MIN_LANES, pl.next_power_of_2(size))


def _image_block(*shape: int) -> pl.BlockSpec:
    return pl.BlockSpec((None, None, *shape), lambda *at: (at[-1], at[-2], *(0 for _ in shape)))


def _load(ref, indices, mask):
    return triton.load(ref.at[indices], mask=mask, other=0)


def _contract(a, b, axis, precision):
    dimensions = (((axis,), (0,)), ((), ()))
    return lax.dot_general(a, b, dimensions, precision=precision, preferred_element_type=jnp.float32)
