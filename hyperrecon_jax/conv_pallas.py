"""The two primitives of `conv.py` as kernels for NVIDIA GPUs (Pallas, Triton): activations cross the memory bus about once.

    conv: x (g, n, h, w, c_in), kernel (g, kh, kw, c_in, c_out) -> (g, n, h, w, c_out), SAME zero padding, odd sides
    correlate: padded (g, n, h + kh - 1, w + kw - 1, c_in), ct (g, n, h, w, c_out) -> (g, kh, kw, c_in, c_out), float32

At the U-Net's widths a layer is bound by memory traffic, not by arithmetic, so both walk down the image and keep what is
still needed of it on the chip:

- `conv`: a program owns a strip of `rows` rows by `columns` pixels. It reads each row of x once (shifted by each of the kw
  columns of taps; the shifts hit the L1 cache), multiplies it with all kh * kw taps, which stay on the chip, and so adds to kh
  rows of the result at once. The kh - 1 unfinished rows are float32 accumulators carried to the next row. Rows read twice:
  kh - 1 of every `rows`.
- `correlate`: a program owns a strip of rows of x, full width. All taps are ONE product over a run of pixels: its left side is
  x side by side under the kw column shifts, its right side ct side by side under the kh row shifts. Each program writes its
  own partial sum, and they are added afterwards, always in the same order: no atomics. With `sides` the image comes without
  padding and the border is masked, which saves writing and reading a padded copy.

Triton works on powers of two, of at least 16 for a product. Images, channels and kernels of any size are accepted: what is
missing is masked inside a program, never padded in memory. The taps of one program must fit in shared memory, so wide layers
are cut into blocks of output channels, each of which reads x again; `conv` refuses more than about 300 input channels (bfloat16,
3x3). Products of float32 are tf32 unless `precision` is HIGHEST; sums are float32.

NOT MEASURED YET: checked in interpret mode against `conv.py`'s loop and lowered for CUDA on a machine without a card.
The library therefore does not choose it. `python -m bin.bench --suite conv` times it beside the other ways on a GPU, and the
fields of `Tiling` are what to tune there.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from hyperrecon_jax.errors import InputError

_SMALLEST = 16  # side of a product on the tensor cores
_TAPS_BYTES = (
    96 * 1024
)  # of a kernel in shared memory, of the 227 KB there are, so that two programs share a multiprocessor


@dataclass(frozen=True)
class Tiling:
    """How the work is cut into programs: pixels of a row, rows of a strip, and Triton's two knobs."""

    columns: int = 64  # a power of two
    rows: int = 16
    warps: int = 4
    stages: int = 2  # of the loop over rows: how many iterations' loads are in flight

    @property
    def params(self) -> triton.CompilerParams:
        return triton.CompilerParams(num_warps=self.warps, num_stages=self.stages)


CONV = Tiling()
CORRELATE = Tiling(warps=8)


@partial(jax.jit, static_argnames=("precision", "tiling", "interpret"))
def conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    precision: lax.Precision | None = None,
    tiling: Tiling = CONV,
    interpret: bool = False,
) -> jax.Array:
    """Convolve n images a group with the group's kernel: the canonical form of `conv.py`, of the type of x.

    Raises:
        InputError: if the taps of `_SMALLEST` output channels are too large for a program.
    """
    groups, n, h, w, c_in = x.shape
    kh, kw, _, c_out = kernel.shape[1:]
    lanes_in, lanes_out = _lanes(c_in), min(_lanes(c_out), 64)
    tap_bytes = kh * kw * lanes_in * x.dtype.itemsize
    while lanes_out > _SMALLEST and tap_bytes * lanes_out > _TAPS_BYTES:
        lanes_out //= 2
    if tap_bytes * lanes_out > _TAPS_BYTES:
        raise InputError(f"`kernel` must have fewer taps or channels to fit in a program, got {kernel.shape[1:]}.")
    columns, rows = min(tiling.columns, _lanes(w)), min(tiling.rows, h)
    return pl.pallas_call(
        partial(_conv_program, rows=rows, tile=(columns, lanes_in, lanes_out), precision=precision),
        out_shape=jax.ShapeDtypeStruct((groups, n, h, w, c_out), x.dtype),
        # the first index runs fastest: what shares rows of x runs at the same time
        grid=(pl.cdiv(c_out, lanes_out), pl.cdiv(w, columns), pl.cdiv(h, rows), n, groups),
        in_specs=[
            pl.BlockSpec((None, None, h, w, c_in), lambda out, column, strip, image, group: (group, image, 0, 0, 0)),
            pl.BlockSpec((None, kh, kw, c_in, c_out), lambda out, column, strip, image, group: (group, 0, 0, 0, 0)),
        ],
        out_specs=pl.BlockSpec((None, None, h, w, c_out), lambda out, column, strip, image, group: (group, image, 0, 0, 0)),
        compiler_params=tiling.params,
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

    def tap(i, j):
        return _load(kernel, (i, j, into[:, None], out), (into[:, None] < c_in) & (out < c_out))

    taps = [[tap(i, j) for j in range(kw)] for i in range(kh)]

    def step(i, unfinished):
        row = first + i - kh // 2
        inside = (row >= 0) & (row < h) & (into[None, :] < c_in)
        shifted = [column + j - kw // 2 for j in range(kw)]
        images = [_load(x, (row, c, into[None, :]), inside & (c >= 0) & (c < w)) for c in shifted]
        sums = list(unfinished) + [jnp.zeros((columns, lanes_out), jnp.float32)]  # the oldest row of y first
        for a in range(kh):
            for image, weights in zip(images, taps[kh - 1 - a], strict=True):
                sums[a] += _product(image, weights, 1, precision)
        done = row - kh // 2
        mask = (done >= first) & (done < h) & (column < w) & (out < c_out)
        triton.store(y.at[done, column, out], sums[0].astype(y.dtype), mask=mask)
        return tuple(sums[1:])

    lax.fori_loop(0, rows + kh - 1, step, (jnp.zeros((columns, lanes_out), jnp.float32),) * (kh - 1))


@partial(jax.jit, static_argnames=("sides", "precision", "tiling", "interpret"))
def correlate(
    padded: jax.Array,
    ct: jax.Array,
    *,
    sides: tuple[int, int] | None = None,
    precision: lax.Precision | None = None,
    tiling: Tiling = CORRELATE,
    interpret: bool = False,
) -> jax.Array:
    """The transpose of `conv` in its kernel, summed over the n images of a group.

    Args:
        padded: x with its border, or without where `sides` is given.
        ct: cotangent of the result.
        sides: of the kernel, for an x of the size of ct whose border is zero.
    """
    groups, n, high, wide, c_in = padded.shape
    h, w, c_out = ct.shape[2:]
    kh, kw = sides or (high - h + 1, wide - w + 1)
    offset = (kh // 2, kw // 2) if sides else (0, 0)
    lanes = tuple(min(pl.next_power_of_2(c), max(1, 128 // pl.next_power_of_2(k))) for c, k in ((c_in, kw), (c_out, kh)))
    blocks_in, blocks_out = pl.cdiv(c_in, lanes[0]), pl.cdiv(c_out, lanes[1])
    parts = max(1, round(high / tiling.rows))
    found = pl.pallas_call(
        partial(
            _correlate_program,
            rows=pl.cdiv(high, parts),
            tile=(min(tiling.columns, _lanes(w)), *lanes),
            offset=offset,
            precision=precision,
        ),
        out_shape=jax.ShapeDtypeStruct((groups, n, parts, kh, kw, c_in, c_out), jnp.float32),
        grid=(blocks_in * blocks_out, parts, n, groups),
        in_specs=[
            pl.BlockSpec((None, None, high, wide, c_in), lambda block, part, image, group: (group, image, 0, 0, 0)),
            pl.BlockSpec((None, None, h, w, c_out), lambda block, part, image, group: (group, image, 0, 0, 0)),
        ],
        out_specs=pl.BlockSpec(
            (None, None, None, kh, kw, c_in, c_out), lambda block, part, image, group: (group, image, part, 0, 0, 0, 0)
        ),
        compiler_params=tiling.params,
        interpret=interpret,
        name="correlate_per_group",
    )(padded, ct)
    return found.sum((1, 2))


def _correlate_program(padded, ct, found, *, rows, tile, offset, precision):
    high, wide, c_in = padded.shape
    h, w, c_out = ct.shape
    kh, kw = found.shape[:2]
    columns, lanes_in, lanes_out = tile
    blocks_in = pl.cdiv(c_in, lanes_in)
    first = pl.program_id(1) * rows
    j, into = _side_by_side(kw, lanes_in, lax.rem(pl.program_id(0), blocks_in))
    i, out = _side_by_side(kh, lanes_out, lax.div(pl.program_id(0), blocks_in))
    left, right = (j < kw) & (into < c_in), (i < kh) & (out < c_out)
    blocks = pl.cdiv(w, columns)

    def step(run, total):
        row, start = first + lax.div(run, blocks), lax.rem(run, blocks) * columns
        column = (start + jnp.arange(columns))[:, None]
        c, r = column + j[None, :] - offset[1], row - i[None, :] + offset[0]
        image = _load(padded, (row, c, into[None, :]), left & (row < high) & (c >= 0) & (c < wide))
        cotangent = _load(ct, (r, column, out[None, :]), right & (r >= 0) & (r < h) & (column < w))
        return total + _product(image, cotangent, 0, precision)

    total = lax.fori_loop(0, rows * blocks, step, jnp.zeros((j.size, i.size), jnp.float32))
    where = i[None, :], j[:, None], into[:, None], out[None, :]
    triton.store(found.at[where], total, mask=left[:, None] & right[None, :])


def _side_by_side(taps, lanes, block):
    """Tap and channel of each lane: the channels of one block, once for every tap."""
    lane = jnp.arange(max(_SMALLEST, pl.next_power_of_2(taps) * lanes))
    return lax.div(lane, lanes), block * lanes + lax.rem(lane, lanes)


def _lanes(size: int) -> int:
    return max(_SMALLEST, pl.next_power_of_2(size))


def _load(ref, where, mask):
    return triton.load(ref.at[where], mask=mask, other=0)


def _product(a, b, contracted, precision):
    dimensions = (((contracted,), (0,)), ((), ()))
    return lax.dot_general(a, b, dimensions, precision=precision, preferred_element_type=jnp.float32)
