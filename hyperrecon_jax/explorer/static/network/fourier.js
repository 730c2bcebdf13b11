// @ts-check
"use strict";

// The Fourier transform of complex images of any size: orthonormal, zero frequency in the corner, as `np.fft.fft2`.
const Fourier = (() => {
  const plans = new Map(); // size -> its factors, its roots of unity and room for one line

  /** Factors of a size above 1: 4 as long as possible, then primes. */
  function factorize(size) {
    const factors = [];
    let rest = size;
    for (const factor of [4, 2]) for (; rest % factor === 0; rest /= factor) factors.push(factor);
    for (let factor = 3; rest > 1; factor += 2) for (; rest % factor === 0; rest /= factor) factors.push(factor);
    return factors;
  }

  function makePlan(size) {
    const line = () => new Float64Array(size);
    const plan = { size, factors: factorize(size), cos: line(), sin: line(), inRe: line(), inIm: line(), re: line(), im: line() };
    plan.partRe = new Float64Array(Math.max(1, ...plan.factors));
    plan.partIm = new Float64Array(Math.max(1, ...plan.factors));
    for (let i = 0; i < size; i++) {
      plan.cos[i] = Math.cos((2 * Math.PI * i) / size);
      plan.sin[i] = -Math.sin((2 * Math.PI * i) / size);
    }
    return plan;
  }

  function findPlan(size) {
    if (!plans.has(size)) plans.set(size, makePlan(size));
    return plans.get(size);
  }

  /**
   * Transforms the entries start, start + stride, ... of a plan's input to `count` entries of its output, from `to` on:
   * first every factor-th of them (decimation in time), then the sums of these parts.
   */
  function transform(plan, level, count, start, stride, to) {
    const factor = plan.factors[level];
    const part = count / factor;
    for (let q = 0; q < factor; q++) {
      if (part > 1) transform(plan, level + 1, part, start + q * stride, stride * factor, to + q * part);
      else {
        plan.re[to + q] = plan.inRe[start + q * stride];
        plan.im[to + q] = plan.inIm[start + q * stride];
      }
    }
    if (factor === 4) combineFour(plan, part, stride, to);
    else combine(plan, factor, part, stride, to);
  }

  function combine(plan, factor, part, stride, to) {
    const { size, cos, sin, re, im, partRe, partIm } = plan;
    const step = size / factor;
    for (let k = 0; k < part; k++) {
      for (let q = 0; q < factor; q++) {
        const at = to + q * part + k;
        const root = q * k * stride; // below `size`, as k is below size / stride / factor
        partRe[q] = re[at] * cos[root] - im[at] * sin[root];
        partIm[q] = re[at] * sin[root] + im[at] * cos[root];
      }
      for (let r = 0; r < factor; r++) {
        let sumRe = 0;
        let sumIm = 0;
        for (let q = 0, root = 0; q < factor; q++, root += r * step) {
          if (root >= size) root -= size;
          sumRe += partRe[q] * cos[root] - partIm[q] * sin[root];
          sumIm += partRe[q] * sin[root] + partIm[q] * cos[root];
        }
        re[to + r * part + k] = sumRe;
        im[to + r * part + k] = sumIm;
      }
    }
  }

  /** As `combine` for four parts, whose roots are 1, -i, -1 and i. */
  function combineFour({ cos, sin, re, im }, part, stride, to) {
    for (let k = 0; k < part; k++) {
      const a = to + k;
      const b = a + part;
      const c = b + part;
      const d = c + part;
      const one = k * stride;
      const two = 2 * one;
      const three = 3 * one;
      const bRe = re[b] * cos[one] - im[b] * sin[one];
      const bIm = re[b] * sin[one] + im[b] * cos[one];
      const cRe = re[c] * cos[two] - im[c] * sin[two];
      const cIm = re[c] * sin[two] + im[c] * cos[two];
      const dRe = re[d] * cos[three] - im[d] * sin[three];
      const dIm = re[d] * sin[three] + im[d] * cos[three];
      const evenRe = re[a] + cRe;
      const evenIm = im[a] + cIm;
      const evenDifferenceRe = re[a] - cRe;
      const evenDifferenceIm = im[a] - cIm;
      const oddRe = bRe + dRe;
      const oddIm = bIm + dIm;
      const oddDifferenceRe = bRe - dRe;
      const oddDifferenceIm = bIm - dIm;
      re[a] = evenRe + oddRe;
      im[a] = evenIm + oddIm;
      re[b] = evenDifferenceRe + oddDifferenceIm;
      im[b] = evenDifferenceIm - oddDifferenceRe;
      re[c] = evenRe - oddRe;
      im[c] = evenIm - oddIm;
      re[d] = evenDifferenceRe - oddDifferenceIm;
      im[d] = evenDifferenceIm + oddDifferenceRe;
    }
  }

  function transformLine(plan, re, im, start, stride) {
    const { size, inRe, inIm } = plan;
    for (let i = 0; i < size; i++) {
      inRe[i] = re[start + i * stride];
      inIm[i] = im[start + i * stride];
    }
    transform(plan, 0, size, 0, 1, 0);
    const norm = 1 / Math.sqrt(size);
    for (let i = 0; i < size; i++) {
      re[start + i * stride] = plan.re[i] * norm;
      im[start + i * stride] = plan.im[i] * norm;
    }
  }

  /** Transforms an image in place; its real and imaginary part are arrays of h * w numbers, row after row. */
  function forward({ re, im }, h, w) {
    for (let row = 0; row < h; row++) transformLine(findPlan(w), re, im, row * w, 1);
    for (let column = 0; column < w; column++) transformLine(findPlan(h), re, im, column, w);
  }

  /** The inverse of `forward`: it is the same sum with the two parts changed over. */
  function inverse({ re, im }, h, w) {
    forward({ re: im, im: re }, h, w);
  }

  return { forward, inverse };
})();
