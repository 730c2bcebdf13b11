// @ts-check
"use strict";

// How an image is measured (physics/operators.py and physics/acquisition.py), and the data-consistency step of an unrolled
// network (physics/proximal.py). A complex image is { re, im }, each an array of h * w numbers.
//
// A measured slice is { h, w, image, y, mask, factor, condition }: the zero-filled image, the measurement, where k-space is
// sampled (null: the measurement is an image), the factor of super-resolution, and the condition for the hypernetwork.
const Measurement = (() => {
  const clamp = (value) => Math.min(1, Math.max(0, value));

  function magnitude({ re, im }) {
    const modulus = new Float32Array(re.length);
    for (let i = 0; i < re.length; i++) modulus[i] = Math.sqrt(re[i] * re[i] + im[i] * im[i]);
    return modulus;
  }

  /** The condition of an acquisition, in [0, 1]: log acceleration, root of sigma, kind of mask (`acquisition.encode`). */
  function encode({ acceleration, sigma, mask }, limits) {
    const [low, high] = limits.acceleration;
    const [weakest, strongest] = limits.sigma;
    const part = (value, width) => (width > 0 ? value / width : 0);
    return [
      clamp(part(Math.log(acceleration / low), Math.log(high / low))),
      clamp(Math.sqrt(Math.max(0, part(sigma - weakest, strongest - weakest)))),
      ...limits.mask.map((name) => Number(name === mask)),
    ];
  }

  const copy = ({ re, im }) => ({ re: re.slice(), im: im.slice() });

  /** K-space of an image where the mask samples it, with complex noise. */
  function measureKspace(kernels, { h, w, plane }, mask, sigma, seed) {
    const y = { re: Float32Array.from(plane), im: new Float32Array(h * w) };
    Fourier.forward(kernels, y, h, w);
    const next = Random.normalPairs(seed);
    for (let i = 0; i < h * w; i++) {
      const [re, im] = next().map((value) => (value * sigma) / Math.SQRT2);
      y.re[i] = mask[i] ? y.re[i] + re : 0;
      y.im[i] = mask[i] ? y.im[i] + im : 0;
    }
    return y;
  }

  /** The zero-filled image of k-space. */
  function zeroFill(kernels, y, h, w) {
    const image = copy(y);
    Fourier.inverse(kernels, image, h, w);
    return image;
  }

  function fromKspace(kernels, y, mask, { h, w }) {
    return { h, w, image: zeroFill(kernels, y, h, w), y, mask, factor: 1 };
  }

  /** The means of blocks of factor x factor pixels, with noise; the network's input repeats each of them. */
  function measureImage({ h, w, plane }, { factor, noise, sigma }, seed) {
    const [rows, columns] = [h / factor, w / factor];
    const next = Random.normalPairs(seed);
    const y = blockMeans(plane, h, w, factor).map((value) => {
      const [first, second] = next();
      return noise === "rician" ? Math.hypot(value + sigma * first, sigma * second) : value + sigma * first;
    });
    const zeros = (size) => new Float32Array(size);
    const image = { re: repeat(y, rows, columns, factor), im: zeros(h * w) };
    return { h, w, image, y: { re: y, im: zeros(y.length) }, mask: null, factor };
  }

  function blockMeans(plane, h, w, factor) {
    const means = new Float32Array((h * w) / factor ** 2);
    for (let row = 0; row < h; row++) {
      for (let column = 0; column < w; column++) {
        const block = Math.floor(row / factor) * (w / factor) + Math.floor(column / factor);
        means[block] += plane[row * w + column] / factor ** 2;
      }
    }
    return means;
  }

  function repeat(small, rows, columns, factor) {
    const w = columns * factor;
    return Float32Array.from({ length: rows * factor * w }, (_, i) => {
      return small[Math.floor(i / w / factor) * columns + Math.floor((i % w) / factor)];
    });
  }

  /**
   * Measures an image { h, w, plane } by the task of the run.
   *
   * `task` is { name, factor, noise, acceleration, sigma, mask, fixed, limits }. `acquisition` takes the place
   * of its own; the same seed gives the same noise.
   */
  function measure(kernels, image, task, acquisition, seed) {
    if (task.name !== "csmri") return { ...measureImage(image, task, seed), condition: [] };
    const { h, w } = image;
    const { fixed } = task; // a network for one mask knows the mask itself
    const { acceleration, sigma, mask: kind } = acquisition || task;
    const isFixed = fixed && fixed.h === h && fixed.w === w;
    const mask = isFixed ? fixed.mask : Masks.make(kind, [h, w], acceleration);
    const y = measureKspace(kernels, image, mask, sigma, seed);
    if (!acquisition) return { ...fromKspace(kernels, y, mask, image), condition: [] };
    // a network for many acquisitions takes k-space that is zero as not sampled
    const sampled = mask.map((value, i) => value && (y.re[i] !== 0 || y.im[i] !== 0));
    return { ...fromKspace(kernels, y, sampled, image), condition: encode(acquisition, task.limits) };
  }

  /** The slice as it were if all of it were measured `scale` times weaker. */
  function divide(measured, scale) {
    const part = ({ re, im }) => ({ re: re.map((value) => value / scale), im: im.map((value) => value / scale) });
    return { ...measured, image: part(measured.image), y: part(measured.y) };
  }

  /** The image nearest to both the measurement and z (`proximal.prox`); a small weight trusts the measurement. */
  function moveTowards(kernels, { h, w, y, mask, factor }, z, weight) {
    const u = copy(z);
    if (mask) {
      const difference = copy(z);
      Fourier.forward(kernels, difference, h, w);
      for (let i = 0; i < h * w; i++) {
        difference.re[i] = mask[i] * (y.re[i] - difference.re[i]); // a processor cannot predict the mask
        difference.im[i] = mask[i] * (y.im[i] - difference.im[i]);
      }
      Fourier.inverse(kernels, difference, h, w);
      return add(u, difference, 1 / (1 + weight));
    }
    const part = (name) => {
      const means = blockMeans(z[name], h, w, factor).map((value, i) => y[name][i] - value);
      return repeat(means, h / factor, w / factor, factor);
    };
    return add(u, { re: part("re"), im: part("im") }, 1 / (1 + weight * factor ** 2));
  }

  function add(u, change, step) {
    for (let i = 0; i < u.re.length; i++) {
      u.re[i] += step * change.re[i];
      u.im[i] += step * change.im[i];
    }
    return u;
  }

  /** J = ||A x_hat - y||^2, a sum over the measurement. */
  function dataConsistency(kernels, plane, { h, w, y, mask, factor }) {
    let sum = 0;
    if (!mask) {
      blockMeans(plane, h, w, factor).forEach((value, i) => (sum += (value - y.re[i]) ** 2));
      return sum;
    }
    const kspace = { re: Float32Array.from(plane), im: new Float32Array(h * w) };
    Fourier.forward(kernels, kspace, h, w);
    for (let i = 0; i < h * w; i++) {
      sum += mask[i] * ((kspace.re[i] - y.re[i]) ** 2 + (kspace.im[i] - y.im[i]) ** 2);
    }
    return sum;
  }

  /** J of the true image, noise alone: { j, spread } as `measurement_band.expected_j`; null for Rician noise. */
  function expectedJ({ y, mask }, { name, noise, sigma: ownSigma }, acquisition) {
    const sigma = acquisition ? acquisition.sigma : ownSigma;
    const power = sigma * sigma;
    if (name !== "csmri") {
      return noise === "rician" ? null : { j: power * y.re.length, spread: power * Math.sqrt(2 * y.re.length) };
    }
    let count = 0;
    for (let i = 0; i < y.re.length; i++) count += Number(Boolean(mask[i] && (y.re[i] !== 0 || y.im[i] !== 0)));
    return { j: power * count, spread: power * Math.sqrt(count) };
  }

  return { dataConsistency, divide, expectedJ, magnitude, measure, moveTowards };
})();
