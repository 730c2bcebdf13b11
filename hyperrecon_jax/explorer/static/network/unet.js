// @ts-check
"use strict";

// The U-Net of models/unet.py, by the kernels of network.wasm. A tensor is a result of a convolution: { h, w, channels, data,
// gain, shift, source }, with the norm after it, y = gain * x + shift, which the next kernel applies. All but its sides are
// places in the memory of the kernels.
const UNet = (() => {
  const LEVELS = 4;
  const EPSILON = 1e-5;
  const MULTIPLE = 2 ** (LEVELS - 1);
  const POINTS = 36; // of a transformed filter
  const SUMS = 10; // doubles for four channels: their sums, their sums of squares, and the four floats they are relative to
  const [PLAIN, RECTIFIED, POOLED, JOINED] = [0, 1, 2, 3]; // how a convolution reads: see network.c

  const toVectors = (channels) => 4 * Math.ceil(channels / 4); // channels in memory

  function allocate(kernels, h, w, channels) {
    const [data, gain, shift] = [h * w, 1, 1].map((pixels) => kernels.allocate(4 * pixels * channels));
    const source = kernels.allocate(16);
    new Uint32Array(kernels.calls.memory.buffer, source, 4).set([data, gain, shift, channels]);
    return { h, w, channels, data, gain, shift, source };
  }

  /** Mean and variance of each channel over the pixels, from the sums of a convolution. */
  function moments(kernels, sums, count, pixels) {
    const numbers = kernels.doubles(sums, (SUMS * count) / 4);
    const floats = kernels.floats(sums, (2 * SUMS * count) / 4);
    return Array.from({ length: count }, (_, channel) => {
      const place = SUMS * Math.floor(channel / 4);
      const i = channel % 4;
      const distance = numbers[place + i] / pixels;
      const variance = Math.max(0, numbers[place + 4 + i] / pixels - distance ** 2);
      return { mean: floats[2 * (place + 8) + i] + distance, variance };
    });
  }

  /** Sets gain and shift of a convolution's result: its bias and the norm after it. */
  function normalize(kernels, { theta, statistics, norm }, y, sums, block, i) {
    const { data: bias } = theta.get(`${block}_conv${i}/bias`);
    const [gain, shift] = [y.gain, y.shift].map((place) => kernels.floats(place, y.channels).fill(0));
    if (norm === "none") {
      gain.fill(1, 0, bias.length);
      shift.set(bias);
      return;
    }
    const get = (map, key) => map.get(`${block}_norm${i}/${key}`).data;
    const [scale, offset] = [get(theta, "scale"), get(theta, "bias")];
    const channels =
      norm === "instance" // the bias of the convolution does not change the result
        ? moments(kernels, sums, y.channels, y.h * y.w)
        : Array.from(bias, (value, c) => ({ mean: get(statistics, "mean")[c] - value, variance: get(statistics, "var")[c] }));
    scale.forEach((value, c) => {
      const { mean, variance } = channels[c];
      gain[c] = value / Math.sqrt(variance + EPSILON);
      shift[c] = offset[c] - (mean * value) / Math.sqrt(variance + EPSILON);
    });
  }

  /** The i-th convolution of a block to y, of what `kind` makes of x and `skip`. */
  function convolve(kernels, network, place, { kind, x, skip = null, y }, block, i) {
    const { calls } = kernels;
    const { shape, data } = network.theta.get(`${block}_conv${i}/kernel`);
    const parts = skip ? 2 : 1;
    const { kernel, filter, sums, room } = place;
    kernels.floats(kernel, data.length).set(data);
    calls.prepareFilter(kernel, shape[2] / parts, parts, shape[3], parts * x.channels, y.channels, filter);
    calls.convolve(kind, x.source, skip && skip.source, y.h, y.w, filter, y.channels, y.data, sums, room);
    normalize(kernels, network, y, sums, block, i);
  }

  /** For each row or column of the padded image that of the image: mirrored at the borders to a multiple of 8. */
  function mirrored(size) {
    const margin = (MULTIPLE - (size % MULTIPLE)) % MULTIPLE;
    const before = Math.floor(margin / 2);
    const index = Array.from({ length: size + margin }, (_, i) => {
      const place = (((i - before) % (2 * size)) + 2 * size) % (2 * size);
      return place < size ? place : 2 * size - 1 - place;
    });
    return { before, index };
  }

  /** The padded image as a tensor. */
  function pad(kernels, { data, h, w, channels }) {
    const [rows, columns] = [mirrored(h).index, mirrored(w).index];
    const x = allocate(kernels, rows.length, columns.length, toVectors(channels));
    const to = kernels.floats(x.data, x.h * x.w * x.channels).fill(0);
    let at = 0;
    for (const row of rows) {
      for (const column of columns) {
        for (let c = 0; c < channels; c++) to[at + c] = data[(row * w + column) * channels + c];
        at += x.channels;
      }
    }
    return x;
  }

  /** The 1 x 1 convolution of the part of x that was the image, h * w * channels numbers. */
  function applyHead(kernels, theta, x, h, w) {
    const { shape, data } = theta.get("head/kernel");
    const [inputs, outputs] = shape.slice(2);
    const kernel = kernels.store(new Float32Array(outputs * x.channels));
    const taps = kernels.floats(kernel, outputs * x.channels);
    for (let i = 0; i < inputs * outputs; i++) taps[(i % outputs) * x.channels + Math.floor(i / outputs)] = data[i];
    const bias = kernels.store(theta.get("head/bias").data);
    const y = kernels.allocate(4 * h * w * outputs);
    const [top, left] = [mirrored(h).before, mirrored(w).before];
    for (let row = 0; row < h; row++) {
      kernels.calls.mixRow(x.source, (row + top) * x.w + left, w, kernel, bias, outputs, y + 4 * row * w * outputs);
    }
    return kernels.floats(y, h * w * outputs).slice();
  }

  /** The memory of a U-Net for an image of h x w pixels: a tensor for each level, `middle`, and what a convolution takes. */
  function allocateAll(kernels, h, w, channels) {
    const levels = Array.from({ length: LEVELS }, (_, i) => allocate(kernels, h >> i, w >> i, channels));
    const middle = allocate(kernels, h, w, channels);
    const joined = 2 * channels;
    const place = {
      kernel: kernels.allocate(4 * 9 * joined * channels),
      filter: kernels.allocate(4 * POINTS * joined * channels),
      sums: kernels.allocate(2 * SUMS * channels),
      room: kernels.allocate(4 * kernels.calls.roomForConvolution(w, joined, channels)),
    };
    return { levels, middle, place };
  }

  /**
   * The result of a U-Net, h * w * channels numbers.
   *
   * `network` is { theta, statistics, norm }, with the names of one U-Net; `image` { data, h, w, channels }.
   */
  function apply(kernels, network, image) {
    kernels.clear();
    let x = pad(kernels, image);
    const channels = toVectors(network.theta.get("down1_conv0/kernel").shape[3]);
    const { levels, middle, place } = allocateAll(kernels, x.h, x.w, channels);
    const applyBlock = (kind, skip, y, block) => {
      const between = { ...middle, h: y.h, w: y.w };
      convolve(kernels, network, place, { kind, x, skip, y: between }, block, 0);
      convolve(kernels, network, place, { kind: RECTIFIED, x: between, y }, block, 1);
      x = y;
    };
    levels.forEach((y, i) => applyBlock(i ? POOLED : PLAIN, null, y, `down${i + 1}`));
    for (let level = LEVELS - 1; level > 0; level--) {
      const skip = levels[level - 1]; // its numbers are last read before the result takes their place
      applyBlock(JOINED, skip, skip, `up${level}`);
    }
    return applyHead(kernels, network.theta, x, image.h, image.w);
  }

  return { apply };
})();
