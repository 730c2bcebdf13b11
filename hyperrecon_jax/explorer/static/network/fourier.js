// @ts-check
"use strict";

// The Fourier transform of complex images of any size: orthonormal, zero frequency in the corner, as `np.fft.fft2`.
const Fourier = (() => {
  const tables = new Map(); // size -> its factors and its roots of unity

  /** Factors of a size above 1: 4 as long as possible, then primes. */
  function factorize(size) {
    const factors = [];
    let rest = size;
    for (const factor of [4, 2]) for (; rest % factor === 0; rest /= factor) factors.push(factor);
    for (let factor = 3; rest > 1; factor += 2) for (; rest % factor === 0; rest /= factor) factors.push(factor);
    return factors;
  }

  function findTables(size) {
    if (!tables.has(size)) {
      const roots = (part) => Float32Array.from({ length: size }, (_, i) => part((-2 * Math.PI * i) / size));
      tables.set(size, { factors: factorize(size), cos: roots(Math.cos), sin: roots(Math.sin) });
    }
    return tables.get(size);
  }

  /** The place of what the kernels know of a size, and of their room. */
  function storePlan(kernels, size) {
    const { factors, cos, sin } = findTables(size);
    const room = kernels.allocate(16 * 6 * size);
    return kernels.storeIntegers([size, kernels.storeIntegers(factors), kernels.store(cos), kernels.store(sin), room]);
  }

  /** Transforms an image in place; its real and imaginary part are arrays of h * w numbers, row after row. */
  function forward(kernels, { re, im }, h, w) {
    kernels.clear();
    const [height, width] = [h, w].map((size) => 4 * Math.ceil(size / 4));
    const planes = [re, im].map((plane) => kernels.storePlane(plane, h, w, width, height));
    const turned = [re, im].map(() => kernels.allocate(4 * height * width));
    const [rows, columns] = [storePlan(kernels, w), storePlan(kernels, h)];
    const { transformColumns, transpose } = kernels.calls;
    transformColumns(planes[0], planes[1], width, columns);
    planes.forEach((plane, i) => transpose(plane, height, width, turned[i]));
    transformColumns(turned[0], turned[1], height, rows);
    turned.forEach((plane, i) => transpose(plane, width, height, planes[i]));
    [re, im].forEach((plane, i) => kernels.readPlane(planes[i], plane, h, w, width));
  }

  /** The inverse of `forward`: it is the same sum with the two parts changed over. */
  function inverse(kernels, { re, im }, h, w) {
    forward(kernels, { re: im, im: re }, h, w);
  }

  return { forward, inverse };
})();
