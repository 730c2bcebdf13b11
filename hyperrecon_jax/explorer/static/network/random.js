// @ts-check
"use strict";

// Random numbers that are the same for the same seed, in every browser.
const Random = (() => {
  /** A function that returns the next number in [0, 1): the generator mulberry32. */
  function uniform(seed) {
    let state = seed >>> 0;
    return () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let mixed = Math.imul(state ^ (state >>> 15), state | 1);
      mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
      return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
    };
  }

  /** A function that returns two independent numbers of the normal distribution (Box and Muller). */
  function normalPairs(seed) {
    const next = uniform(seed);
    return () => {
      const radius = Math.sqrt(-2 * Math.log(1 - next()));
      const angle = 2 * Math.PI * next();
      return [radius * Math.cos(angle), radius * Math.sin(angle)];
    };
  }

  /** The numbers 0 to count - 1 in a random order. */
  function permutation(count, next) {
    const order = Uint32Array.from({ length: count }, (_, i) => i);
    for (let i = count - 1; i > 0; i--) {
      const j = Math.floor(next() * (i + 1));
      [order[i], order[j]] = [order[j], order[i]];
    }
    return order;
  }

  return { normalPairs, permutation, uniform };
})();
