// @ts-check
"use strict";

// Masks for k-space by the rules of hyperrecon_jax/physics/masks.py, with random numbers of this page: the same number of
// samples and the same density, but other points. A mask is a Uint8Array of h * w, zero frequency in the corner.
const Masks = (() => {
  // `polynomial_density` of the two masks that the authors published, by their acceleration.
  const AUTHORS = {
    3.21: { order: 2, extent: 218 / 128, dense: 56 / 128, center: 10 },
    7.305: { order: 3, extent: 213 / 128, dense: 24 / 128, center: 4 },
  };

  /** As Python rounds: halves to the even number. */
  function round(value) {
    const below = Math.floor(value);
    if (value - below !== 0.5) return Math.round(value);
    return below % 2 === 0 ? below : below + 1;
  }

  /** Whole frequencies in the order of the FFT: 0, 1, ..., -2, -1. */
  const frequency = (i, size) => (i < Math.ceil(size / 2) ? i : i - size);

  function poissonDisc([h, w], acceleration, seed) {
    const settings = { order: Math.log2(acceleration), extent: 1.68, dense: 1.4 / Math.max(acceleration, 3), center: 4 };
    return throwDarts([h, w], acceleration, seed, settings);
  }

  function poissonDiscAuthors(shape, acceleration, seed) {
    if (!(acceleration in AUTHORS)) throw new Error(`The authors' masks are ${Object.keys(AUTHORS).join(" and ")}-fold.`);
    return throwDarts(shape, acceleration, seed, AUTHORS[acceleration]);
  }

  /** The distance of each frequency from zero, in units of Nyquist. */
  function radii([h, w]) {
    const radius = new Float64Array(h * w);
    for (let row = 0; row < h; row++) {
      for (let column = 0; column < w; column++) {
        radius[row * w + column] = Math.hypot(frequency(row, h) / (h / 2), frequency(column, w) / (w / 2));
      }
    }
    return radius;
  }

  /** The probability that a frequency is sampled: 1 in the centre, min(1, c (1 - r / extent) ** order) outside it. */
  function polynomialDensity([h, w], count, radius, { order, extent, dense, center }) {
    const inSquare = (k) => k >= -Math.floor(center / 2) && k < center - Math.floor(center / 2);
    const polynomial = radius.map((r) => (1 - r / extent) ** order);
    let full = 0;
    radius.forEach((r, i) => {
      const isFull = r < dense || (inSquare(frequency(Math.floor(i / w), h)) && inSquare(frequency(i % w, w)));
      if (isFull) [polynomial[i], full] = [Infinity, full + 1];
    });
    if (full > count) throw new Error(`${h} x ${w} pixels are too few for so high an acceleration.`);
    const at = (c) => polynomial.map((p) => Math.min(1, c * p));
    let [low, high] = [0, 1 / polynomial.reduce((least, p) => Math.min(least, p), Infinity)];
    if (!Number.isFinite(high)) high = 1;
    for (let i = 0; i < 60; i++) {
      const middle = (low + high) / 2;
      let sum = 0;
      for (const p of polynomial) sum += p === Infinity ? 1 : Math.min(1, middle * p);
      if (sum <= count) low = middle;
      else high = middle;
    }
    return low > 0 ? at(low) : polynomial.map((p) => (p === Infinity ? 1 : 0));
  }

  /** Whole numbers near `expected` whose sum is `total`: differences of the rounded running sum. */
  function quotas(expected, total) {
    const sum = expected.reduce((total, value) => total + value, 0);
    if (!total || !sum) return expected.map(() => 0);
    let [running, assigned] = [0, 0];
    return expected.map((value) => {
      running += value;
      const rounded = Math.floor(running * (total / sum) + 0.5);
      const quota = rounded - assigned;
      assigned = rounded;
      return quota;
    });
  }

  /** Steps down and right whose squared length is at most `reach`. */
  function discOffsets(reach) {
    const side = Math.floor(Math.sqrt(reach));
    const offsets = [];
    for (let down = -side; down <= side; down++) {
      for (let right = -side; right <= side; right++) if (down ** 2 + right ** 2 <= reach) offsets.push([down, right]);
    }
    return offsets;
  }

  function makeCover(covered, [h, w]) {
    const discs = new Map();
    return (pixel, reach) => {
      if (!discs.has(reach)) discs.set(reach, discOffsets(reach));
      const [row, column] = [Math.floor(pixel / w), pixel % w];
      for (const [down, right] of discs.get(reach)) {
        covered[((row + down + h) % h) * w + ((column + right + w) % w)] = 1;
      }
    };
  }

  /**
   * Dart throwing with an exact number of points and an exact radial density. Every ring of equal frequency has a quota.
   * All pixels are tried in one random order; discs around those sampled before keep others away. The discs then become
   * smaller, and pixels are tried again, until all quotas are filled.
   */
  function throwDarts(shape, acceleration, seed, settings) {
    const [h, w] = shape;
    const count = round((h * w) / acceleration);
    const radius = radii(shape);
    const density = polynomialDensity(shape, count, radius, settings);
    const sampled = Uint8Array.from(density, (value) => (value === 1 ? 1 : 0));
    const ring = Uint32Array.from(radius, (r) => Math.floor((r * Math.min(h, w)) / 4)); // two pixels wide
    const expected = Array(Math.max(...new Set(ring)) + 1).fill(0);
    ring.forEach((r, i) => (expected[r] += sampled[i] ? 0 : density[i]));
    const quota = quotas(expected, count - sampled.reduce((sum, value) => sum + value, 0));
    const order = Random.permutation(h * w, Random.uniform(seed));
    for (let scale = 1; quota.some((places) => places > 0); scale *= 0.9) {
      const reachOf = (i) => Math.ceil(Math.min(scale ** 2 / density[i], (Math.min(h, w) / 2) ** 2)) - 1;
      const covered = new Uint8Array(h * w);
      const cover = makeCover(covered, shape);
      sampled.forEach((value, i) => value && cover(i, reachOf(i)));
      for (const pixel of order) {
        if (covered[pixel] || quota[ring[pixel]] <= 0) continue;
        sampled[pixel] = 1;
        quota[ring[pixel]] -= 1;
        cover(pixel, reachOf(pixel));
      }
    }
    return sampled;
  }

  /** The columns by rising frequency: those of the sampled centre, the others, and how many of these to sample. */
  function splitColumns(w, acceleration) {
    const size = Math.max(1, round((w * 0.32) / acceleration));
    const count = round(w / acceleration) - size;
    if (count < 0) throw new Error(`${w} columns are too few for so high an acceleration.`);
    const columns = Array.from({ length: w }, (_, i) => (i + Math.ceil(w / 2)) % w);
    const center = columns.splice(Math.floor((w - size + 1) / 2), size);
    return { center, outer: columns, count };
  }

  function fromColumns([h, w], columns) {
    const mask = new Uint8Array(h * w);
    for (let row = 0; row < h; row++) for (const column of columns) mask[row * w + column] = 1;
    return mask;
  }

  function randomLines(shape, acceleration, seed) {
    const { center, outer, count } = splitColumns(shape[1], acceleration);
    const order = Random.permutation(outer.length, Random.uniform(seed));
    return fromColumns(shape, [...center, ...[...order.subarray(0, count)].map((i) => outer[i])]);
  }

  function equispacedLines(shape, acceleration, seed) {
    const { center, outer, count } = splitColumns(shape[1], acceleration);
    const offset = Random.uniform(seed)();
    const selected = Array.from({ length: count }, (_, i) => outer[Math.floor(((i + offset) * outer.length) / count)]);
    return fromColumns(shape, [...center, ...selected]);
  }

  const KINDS = {
    poisson_disc: poissonDisc,
    poisson_disc_authors: poissonDiscAuthors,
    random_lines: randomLines,
    equispaced_lines: equispacedLines,
  };

  const make = (kind, shape, acceleration, seed = 0) => KINDS[kind](shape, acceleration, seed);

  return { make };
})();
