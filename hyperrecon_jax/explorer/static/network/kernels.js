// @ts-check
"use strict";

// The kernels of network.wasm (made of .ci/wasm/network.c) and their memory. Who calls them lays out the memory anew for
// each picture. The memory may move when room is taken, so its numbers are looked up (`floats`, `doubles`) after that.
class Kernels {
  static async open(bytes) {
    if (!WebAssembly.validate(bytes)) {
      throw new Error("This browser is too old to run the network: it has no WebAssembly SIMD. Use one of 2023 or later.");
    }
    const { instance } = await WebAssembly.instantiate(bytes);
    return new Kernels(instance.exports);
  }

  /** @param {any} calls what the kernels are called by */
  constructor(calls) {
    this.calls = calls;
    this.clear();
  }

  clear() {
    this.end = this.calls.__heap_base.value;
  }

  /** The place of so many bytes. */
  allocate(bytes) {
    const { memory } = this.calls;
    const start = Math.ceil(this.end / 64) * 64;
    this.end = start + bytes;
    const missing = this.end - memory.buffer.byteLength;
    if (missing > 0) memory.grow(Math.ceil(missing / 65536));
    return start;
  }

  floats(place, count) {
    return new Float32Array(this.calls.memory.buffer, place, count);
  }

  doubles(place, count) {
    return new Float64Array(this.calls.memory.buffer, place, count);
  }

  /** The place of numbers that are copied there. */
  store(numbers) {
    const place = this.allocate(4 * numbers.length);
    this.floats(place, numbers.length).set(numbers);
    return place;
  }

  storeIntegers(numbers) {
    const place = this.allocate(4 * numbers.length);
    new Uint32Array(this.calls.memory.buffer, place, numbers.length).set(numbers);
    return place;
  }

  /** The place of a plane of h x w numbers among zeros. */
  storePlane(plane, h, w, width, height = h) {
    const place = this.allocate(4 * height * width);
    const to = this.floats(place, height * width);
    if (width === w) to.set(plane);
    else {
      to.fill(0);
      for (let row = 0; row < h; row++) to.set(plane.subarray(row * w, (row + 1) * w), row * width);
    }
    to.fill(0, h * width);
    return place;
  }

  /** Copies such a plane to an array of h * w numbers. */
  readPlane(place, to, h, w, width) {
    const from = this.floats(place, h * width);
    for (let row = 0; row < h; row++) to.set(from.subarray(row * width, row * width + w), row * w);
  }
}
