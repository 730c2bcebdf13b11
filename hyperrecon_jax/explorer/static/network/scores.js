// @ts-check
"use strict";

// The scores of a reconstruction against the truth, as in losses/losses.py and losses/metrics.py.
const Scores = (() => {
  const PSNR_LIMIT = 100; // dB, stands for infinity
  const SSIM = { sigma: 1.5, radius: 5, c1: 0.01 ** 2, c2: 0.03 ** 2 };
  const EDGES = { sigma: 1.5, radius: 7 };

  function gaussian(sigma, radius) {
    const taps = Array.from({ length: 2 * radius + 1 }, (_, i) => Math.exp(-0.5 * ((i - radius) / sigma) ** 2));
    const sum = taps.reduce((total, value) => total + value, 0);
    return taps.map((tap) => tap / sum);
  }

  /** Filters the columns and rows of a plane where the filters lie inside: a plane smaller by their length - 1. */
  function filter(kernels, { plane, h, w }, columnTaps, rowTaps) {
    kernels.clear();
    const [height, width] = [h - columnTaps.length + 1, w - rowTaps.length + 1];
    if (height < 1 || width < 1) return new Float32Array(0);
    const [padded, columns] = [w, width].map((size) => 4 * Math.ceil(size / 4));
    const place = kernels.storePlane(plane, h, w, padded);
    const [down, across] = [columnTaps, rowTaps].map((taps) => kernels.store(taps));
    const line = kernels.store(new Float32Array(columns + rowTaps.length + padded));
    const to = kernels.allocate(4 * height * columns);
    const { filterPlane } = kernels.calls;
    filterPlane(place, padded, down, columnTaps.length, across, rowTaps.length, height, columns, line, to);
    const result = new Float32Array(height * width);
    kernels.readPlane(to, result, height, width, columns);
    return result;
  }

  function multiply(a, b) {
    const product = new Float32Array(a.length);
    for (let i = 0; i < product.length; i++) product[i] = a[i] * b[i];
    return product;
  }

  function ssim(kernels, x, truth, h, w) {
    const { c1, c2, sigma, radius } = SSIM;
    const taps = gaussian(sigma, radius);
    const blur = (plane) => filter(kernels, { plane, h, w }, taps, taps);
    const [mean, meanTruth] = [blur(x), blur(truth)];
    const [square, squareTruth, product] = [blur(multiply(x, x)), blur(multiply(truth, truth)), blur(multiply(x, truth))];
    let sum = 0;
    for (let i = 0; i < mean.length; i++) {
      const means = mean[i] * meanTruth[i];
      const squares = mean[i] * mean[i] + meanTruth[i] * meanTruth[i];
      const variances = square[i] + squareTruth[i] - squares;
      sum += ((2 * means + c1) * (2 * (product[i] - means) + c2)) / ((squares + c1) * (variances + c2));
    }
    return sum / mean.length;
  }

  /** The difference of two planes with a mirrored border; the pixels at the edge are repeated. */
  function mirroredDifference(x, truth, h, w, margin) {
    const place = (i, size) => {
      const folded = (((i - margin) % (2 * size)) + 2 * size) % (2 * size);
      return folded < size ? folded : 2 * size - 1 - folded;
    };
    const [height, width] = [h + 2 * margin, w + 2 * margin];
    const columns = Uint32Array.from({ length: width }, (_, i) => place(i, w));
    const plane = new Float32Array(height * width);
    for (let row = 0; row < height; row++) {
      const start = place(row, h) * w;
      for (let i = 0; i < width; i++) plane[row * width + i] = x[start + columns[i]] - truth[start + columns[i]];
    }
    return { plane, h: height, w: width };
  }

  /** The l2 norm of the difference after a Laplacian of a Gaussian whose kernel sums to zero. */
  function hfen(kernels, x, truth, h, w) {
    const { sigma, radius } = EDGES;
    const taps = gaussian(sigma, radius);
    const second = taps.map((tap, i) => (tap * ((i - radius) ** 2 - sigma ** 2)) / sigma ** 4);
    const average = (2 * second.reduce((total, value) => total + value, 0)) / taps.length ** 2; // the sum of `taps` is 1
    const ones = taps.map(() => 1);
    const padded = mirroredDifference(x, truth, h, w, radius);
    const [down, across, level] = [[second, taps], [taps, second], [ones, ones]].map((pair) => filter(kernels, padded, ...pair));
    let squares = 0;
    for (let i = 0; i < down.length; i++) squares += (down[i] + across[i] - average * level[i]) ** 2;
    return Math.sqrt(squares);
  }

  /** PSNR in dB, SSIM, MAE and HFEN of a plane, by name. */
  function compare(kernels, x, truth, h, w) {
    let squares = 0;
    let absolute = 0;
    for (let i = 0; i < x.length; i++) {
      const error = x[i] - truth[i];
      squares += error * error;
      absolute += Math.abs(error);
    }
    return {
      psnr: Math.min(PSNR_LIMIT, -10 * Math.log10(squares / x.length)),
      ssim: ssim(kernels, x, truth, h, w),
      mae: absolute / x.length,
      hfen: hfen(kernels, x, truth, h, w),
    };
  }

  return { compare };
})();
