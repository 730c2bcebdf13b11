// @ts-check
"use strict";

// Numbers of half precision (IEEE 754 binary16): browsers of 2023 have no array of them.
const Half = (() => {
  /** The number of 16 bits. */
  function toNumber(bits) {
    const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023];
    const sign = bits & 0x8000 ? -1 : 1;
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
  }

  return { toNumber };
})();
