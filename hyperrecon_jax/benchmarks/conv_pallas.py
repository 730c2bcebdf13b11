"""The two primitives of `conv.py` as kernels for NVIDIA GPUs (Pallas, Triton): activations cross the memory bus about once.

    conv: x (g, n, h, w, c_in), kernel (g, kh, kw, c_in, c_out) -> (g, n, h, w, c_out), SAME zero padding, odd sides
    correlate: padded (g, n, h + kh - 1, w + kw - 1, c_in), ct (g, n, h, w, c_out) -> (g, kh, kw, c_in, c_out), float32

At the U-Net's widths a layer is bound by memory traffic, not by arithmetic, so both walk down the image and keep on the
chip what is still needed of it:

- `conv`: a program owns a strip of `rows` by `columns` pixels. It reads a row of x (once for each of the kw shifts, of
  which a cache serves all but the first), multiplies it with all kh * kw taps, which stay on the chip, and so adds to kh
  rows of the result at once; the kh - 1 unfinished ones are float32 accumulators carried to the next row. Of every strip,
  kh - 1 rows are read by its neighbours too.
- `correlate`: a program owns a strip of rows of x, full width. All taps are ONE product over a run of pixels: on its left
  x under the kw column shifts side by side, on its right ct under the kh row shifts. Each program writes a partial sum of
  its own, and they are added afterwards, always in the same order: no atomics. With `sides` the image comes without its
  border, which is masked: that saves writing and reading a padded copy.

Triton works on powers of two, of at least 16 in a product. Images, channels and kernels of any size are accepted: what is
missing is masked inside a program, never padded in memory (2 channels cost the arithmetic of 16 and the traffic of 2). The
taps of a program must fit in shared memory, so wide layers are cut into blocks of output channels, each of which reads x
again, and `conv` refuses what fits in no block (by default above 128 input channels of bfloat16 and 64 of float32, 3x3).
Products of float32 are tf32 unless `precision` is HIGHEST, which leaves the tensor cores and is slow; sums are float32.

NOT MEASURED YET: checked in interpret mode against `conv.py`'s loop, and compiled to sm_90a on a machine without a card
(tensor core products, vector loads, no spilled registers, but for HIGHEST). The library therefore does not choose it: time
it beside the other ways first (`python -m bin.bench --suite conv` on a GPU). The fields of `Tiling` are what to tune.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from hyperrecon_jax.runtime.errors import InputError

_SMALLEST = 16  # side of a product on the tensor cores
_SHARED = 224 * 1024  # bytes of shared memory a multiprocessor of an H100 has to give


@dataclass(frozen=True)
class Tiling:
    """How the work is cut into programs, and Triton's two knobs."""

    columns: int = 64  # pixels of a row, a power of two
    rows: int = 16  # of a strip
    warps: int = 4
    stages: int = 2  # iterations over rows whose loads are in flight; loads bypass the L1 cache unless this is 1


CONV = Tiling()
CORRELATE = Tiling(warps=8)


@partial(jax.jit, static_argnames=("precision", "tiling", "interpret"))
def conv(x, kernel, *, precision: lax.Precision | None = None, tiling: Tiling = CONV, interpret: bool = False) -> jax.Array:
    """Convolve n images a group with the group's kernel: the canonical form of `conv.py`, of the type of x.

    Raises:
        InputError: if not even the taps of 16 output channels fit on the chip.
    """
    groups, n, h, w, c_in = x.shape
    kh, kw, _, c_out = kernel.shape[1:]
    columns, rows = min(tiling.columns, _lanes(w)), min(tiling.rows, h)
    lanes_in, lanes_out = _lanes(c_in), min(_lanes(c_out), 64)

    def shared(lanes):  # bytes of the taps and of the pixels in flight
        return (kh * kw * lanes + kw * tiling.stages * columns) * lanes_in * x.dtype.itemsize

    while lanes_out > _SMALLEST and shared(lanes_out) > _SHARED // 2:  # so that two programs share a multiprocessor
        lanes_out //= 2
    if shared(lanes_out) > _SHARED:
        raise InputError(f"`kernel` has too many taps or input channels, got {kernel.shape[1:]} in {x.dtype}.")
    return pl.pallas_call(
        partial(_conv_program, rows=rows, tile=(columns, lanes_in, lanes_out), precision=precision),
        out_shape=jax.ShapeDtypeStruct((groups, n, h, w, c_out), x.dtype),
        # the first index runs fastest, so that programs which share rows of x run at the same time
        grid=(pl.cdiv(c_out, lanes_out), pl.cdiv(w, columns), pl.cdiv(h, rows), n, groups),
        in_specs=[_of_image(h, w, c_in), pl.BlockSpec((None, kh, kw, c_in, c_out), lambda *at: (at[-1], 0, 0, 0, 0))],
        out_specs=_of_image(h, w, c_out),
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
    into, out = jnp.arange(lanes_in), pl.program_id(0) * lanes_out + jnp.arange(lanes_out)[None, :]
    empty = jnp.zeros((columns, lanes_out), jnp.float32)

    def tap(i, j):
        return _load(kernel, (i, j, into[:, None], out), (into[:, None] < c_in) & (out < c_out))

    taps = [[tap(i, j) for j in range(kw)] for i in range(kh)]

    def step(i, unfinished):
        row = first + i - kh // 2
        inside = (row >= 0) & (row < h) & (into[None, :] < c_in)
        shifted = [column + j - kw // 2 for j in range(kw)]
        images = [_load(x, (row, c, into[None, :]), inside & (c >= 0) & (c < w)) for c in shifted]
        sums = [*unfinished, empty]  # rows of y, of which this is the last row of x for the first
        for a in range(kh):
            for image, weights in zip(images, taps[kh - 1 - a], strict=True):
                sums[a] += _product(image, weights, 1, precision)
        done = row - kh // 2
        mask = (done >= first) & (done < h) & (column < w) & (out < c_out)
        triton.store(y.at[done, column, out], sums[0].astype(y.dtype), mask=mask)
        return tuple(sums[1:])

    lax.fori_loop(0, rows + kh - 1, step, (empty,) * (kh - 1))


@partial(jax.jit, static_argnames=("sides", "precision", "tiling", "interpret"))
def correlate(
    padded,
    ct,
    *,
    sides: tuple[int, int] | None = None,
    precision: lax.Precision | None = None,
    tiling: Tiling = CORRELATE,
    interpret: bool = False,
) -> jax.Array:
    """The transpose of `conv` in its kernel, for a cotangent of its result.

    `padded` is x with its border, or, where the `sides` of the kernel are given, x itself, whose border is zero.
    """
    groups, n, high, wide, c_in = padded.shape
    h, w, c_out = ct.shape[2:]
    kh, kw = sides or (high - h + 1, wide - w + 1)
    offset = (kh // 2, kw // 2) if sides else (0, 0)
    lanes = [min(pl.next_power_of_2(c), max(1, 128 // pl.next_power_of_2(k))) for c, k in ((c_in, kw), (c_out, kh))]
    tile = min(tiling.columns, _lanes(w)), *lanes
    parts = max(1, round(high / tiling.rows))
    found = pl.pallas_call(
        partial(_correlate_program, rows=pl.cdiv(high, parts), tile=tile, offset=offset, precision=precision),
        out_shape=jax.ShapeDtypeStruct((groups, n, parts, kh, kw, c_in, c_out), jnp.float32),
        grid=(pl.cdiv(c_in, lanes[0]) * pl.cdiv(c_out, lanes[1]), parts, n, groups),
        in_specs=[_of_image(high, wide, c_in), _of_image(h, w, c_out)],
        out_specs=pl.BlockSpec((None, None, None, kh, kw, c_in, c_out), lambda _, part, *at: (*at[::-1], part, 0, 0, 0, 0)),
        compiler_params=triton.CompilerParams(num_warps=tiling.warps, num_stages=tiling.stages),
        interpret=interpret,
        name="correlate_per_group",
    )(padded, ct)
    return found.sum((1, 2))


def _correlate_program(padded, ct, found, *, rows, tile, offset, precision):
    high, wide, c_in = padded.shape
    h, w, c_out = ct.shape
    kh, kw = found.shape[:2]
    columns, lanes_in, lanes_out = tile
    blocks_in, runs = pl.cdiv(c_in, lanes_in), pl.cdiv(w, columns)
    first = pl.program_id(1) * rows
    j, into = _side_by_side(kw, lanes_in, lax.rem(pl.program_id(0), blocks_in))
    i, out = _side_by_side(kh, lanes_out, lax.div(pl.program_id(0), blocks_in))
    left, right = (j < kw) & (into < c_in), (i < kh) & (out < c_out)

    def step(run, total):
        row, start = first + lax.div(run, runs), lax.rem(run, runs) * columns
        column = start + jnp.arange(columns)[:, None]
        c, r = column + j - offset[1], row - i + offset[0]
        image = _load(padded, (row, c, into), left & (row < high) & (c >= 0) & (c < wide))
        cotangent = _load(ct, (r, column, out), right & (r >= 0) & (r < h) & (column < w))
        return total + _product(image, cotangent, 0, precision)

    total = lax.fori_loop(0, rows * runs, step, jnp.zeros((j.size, i.size), jnp.float32))
    triton.store(found.at[i, j.T, into.T, out], total, mask=left.T & right)


def _side_by_side(taps, lanes, block):
    """Tap and channel of each lane of a row: the channels of one block, once for every tap."""
    lane = jnp.arange(max(_SMALLEST, pl.next_power_of_2(taps) * lanes))[None, :]
    return lax.div(lane, lanes), block * lanes + lax.rem(lane, lanes)


def _lanes(size: int) -> int:
    return max(_SMALLEST, pl.next_power_of_2(size))


def _of_image(*shape: int) -> pl.BlockSpec:
    return pl.BlockSpec((None, None, *shape), lambda *at: (at[-1], at[-2], *(0 for _ in shape)))


def _load(ref, where, mask):
    return triton.load(ref.at[where], mask=mask, other=0)


def _product(a, b, contracted, precision):
    dimensions = (((contracted,), (0,)), ((), ()))
    return lax.dot_general(a, b, dimensions, precision=precision, preferred_element_type=jnp.float32)
