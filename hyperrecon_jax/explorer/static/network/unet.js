// @ts-check
"use strict";

// The U-Net of models/unet.py. The convolutions run in WebAssembly (TensorFlow.js). All that lies between them works on the
// same memory. An image there is a tensor [1, h, w, channels]; the memory may move when a tensor is made, so the numbers of
// a tensor are looked up (`numbers`) after that.
const UNet = (() => {
  const LEVELS = 4;
  const EPSILON = 1e-5;
  const MULTIPLE = 2 ** (LEVELS - 1);
  const PART = 512; // pixels that are worked on at a time

  const allocate = (backend, shape) => backend.makeOutput(shape, "float32");
  const numbers = (backend, tensor) => backend.typedArrayFromHeap(tensor);
  const free = (backend, tensor) => backend.disposeData(tensor.dataId);

  function store(backend, shape, data) {
    const tensor = allocate(backend, shape);
    numbers(backend, tensor).set(data);
    return tensor;
  }

  function convolve(backend, x, { shape, data }) {
    const filter = store(backend, shape, data);
    const attrs = { strides: [1, 1], dilations: [1, 1], pad: "same", dataFormat: "NHWC" };
    const y = TensorFlow.conv2DConfig.kernelFunc({ inputs: { x, filter }, backend, attrs });
    free(backend, filter);
    return y;
  }

  /** Calls `visit(channel, start, end)` for parts of an image that fit in the cache of a processor. */
  function forParts(values, channels, visit) {
    const size = PART * channels;
    for (let start = 0; start < values.length; start += size) {
      const end = Math.min(values.length, start + size);
      for (let channel = 0; channel < channels; channel++) visit(channel, start + channel, end);
    }
  }

  /** Mean and variance of each channel over the pixels. */
  function moments(values, channels) {
    const pixels = values.length / channels;
    const [sums, squares] = [new Float64Array(channels), new Float64Array(channels)];
    forParts(values, channels, (channel, start, end) => {
      let sum = 0;
      let square = 0;
      for (let i = start; i < end; i += channels) {
        const value = values[i];
        sum += value;
        square += value * value;
      }
      sums[channel] += sum;
      squares[channel] += square;
    });
    const mean = sums.map((sum) => sum / pixels);
    return { mean, variance: squares.map((square, c) => Math.max(0, square / pixels - mean[c] ** 2)) };
  }

  /** What the norm after a convolution makes of each channel: y = gain * x + shift, with the convolution's bias in it. */
  function affine(theta, statistics, norm, name, values, bias) {
    const channels = bias.length;
    if (norm === "none") return { gain: new Float64Array(channels).fill(1), shift: Float64Array.from(bias) };
    const { data: scale } = theta.get(`${name}/scale`);
    const { data: offset } = theta.get(`${name}/bias`);
    let [mean, variance] = [null, null];
    if (norm === "instance") ({ mean, variance } = moments(values, channels)); // the bias does not change the result
    else {
      mean = statistics.get(`${name}/mean`).data.map((value, c) => value - bias[c]);
      variance = statistics.get(`${name}/var`).data;
    }
    const gain = Float64Array.from(scale, (value, c) => value / Math.sqrt(variance[c] + EPSILON));
    return { gain, shift: gain.map((value, c) => offset[c] - mean[c] * value) };
  }

  function normalizeAndRectify(values, { gain, shift }) {
    const channels = gain.length;
    forParts(values, channels, (channel, start, end) => {
      // max(0, x) as x / 2 + |x / 2|: a processor cannot predict the sign, so a branch would cost more than all else
      const factor = gain[channel] / 2;
      const term = shift[channel] / 2;
      for (let i = start; i < end; i += channels) {
        const value = values[i] * factor + term;
        values[i] = value + Math.abs(value);
      }
    });
  }

  /** Two convolutions, each with its norm and ReLU. Frees x. */
  function block(backend, network, x, name) {
    for (const i of [0, 1]) {
      const { theta, statistics, norm } = network;
      const y = convolve(backend, x, theta.get(`${name}_conv${i}/kernel`));
      free(backend, x);
      const { data: bias } = theta.get(`${name}_conv${i}/bias`);
      const values = numbers(backend, y);
      normalizeAndRectify(values, affine(theta, statistics, norm, `${name}_norm${i}`, values, bias));
      x = y;
    }
    return x;
  }

  /** The largest of each 2 x 2 pixels. */
  function maxPool(backend, x) {
    const [, h, w, channels] = x.shape;
    const y = allocate(backend, [1, h / 2, w / 2, channels]);
    const [from, to] = [numbers(backend, x), numbers(backend, y)];
    const below = w * channels;
    let at = 0;
    for (let row = 0; row < h; row += 2) {
      for (let column = 0; column < w; column += 2) {
        const first = (row * w + column) * channels;
        for (let i = first; i < first + channels; i++) {
          const above = Math.max(from[i], from[i + channels]);
          to[at++] = Math.max(above, from[i + below], from[i + below + channels]);
        }
      }
    }
    return y;
  }

  /** For each entry of an axis twice as long, the entry before it and its distance from that (aligned corners). */
  function interpolation(size) {
    const before = new Uint32Array(2 * size);
    const part = new Float64Array(2 * size);
    for (let i = 0; i < 2 * size; i++) {
      const position = (i * (size - 1)) / (2 * size - 1);
      before[i] = Math.min(Math.floor(position), Math.max(0, size - 2));
      part[i] = position - before[i];
    }
    return { before, part };
  }

  /** A row of pixels enlarged twice, at places of `to` that are `step` apart, from `at` on. */
  function enlargeRow(row, channels, { before, part }, to, at, step) {
    const next = row.length > channels ? channels : 0; // a single pixel has no next one
    for (let column = 0; column < before.length; column++) {
      const left = before[column] * channels;
      const share = part[column];
      for (let c = 0; c < channels; c++) {
        const value = row[left + c];
        to[at + column * step + c] = value + (row[left + next + c] - value) * share;
      }
    }
  }

  /** x enlarged twice by bilinear interpolation, and the channels of `skip` behind its own. Frees both. */
  function upsampleAndJoin(backend, x, skip) {
    const [, h, w, channels] = x.shape;
    const skipped = skip.shape[3];
    const joined = channels + skipped;
    const y = allocate(backend, [1, 2 * h, 2 * w, joined]);
    const [from, other, to] = [x, skip, y].map((tensor) => numbers(backend, tensor));
    const [rows, columns] = [interpolation(h), interpolation(w)];
    const row = new Float32Array(w * channels);
    for (let r = 0; r < 2 * h; r++) {
      const above = rows.before[r] * row.length;
      const below = h > 1 ? above + row.length : above;
      const share = rows.part[r];
      for (let i = 0; i < row.length; i++) row[i] = from[above + i] + (from[below + i] - from[above + i]) * share;
      enlargeRow(row, channels, columns, to, r * 2 * w * joined, joined);
    }
    for (let pixel = 0; pixel < 4 * h * w; pixel++) {
      for (let c = 0; c < skipped; c++) to[pixel * joined + channels + c] = other[pixel * skipped + c];
    }
    free(backend, x);
    free(backend, skip);
    return y;
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

  function pad(backend, { data, h, w, channels }) {
    const [rows, columns] = [mirrored(h).index, mirrored(w).index];
    const x = allocate(backend, [1, rows.length, columns.length, channels]);
    const to = numbers(backend, x);
    let at = 0;
    for (const row of rows) {
      for (const column of columns) {
        for (let c = 0; c < channels; c++) to[at++] = data[(row * w + column) * channels + c];
      }
    }
    return x;
  }

  /** The part of a padded image that was the image, with the bias of each channel added. */
  function crop(backend, x, h, w, bias) {
    const [, , width, channels] = x.shape;
    const [top, left] = [mirrored(h).before, mirrored(w).before];
    const from = numbers(backend, x);
    const data = new Float32Array(h * w * channels);
    for (let row = 0; row < h; row++) {
      for (let column = 0; column < w; column++) {
        for (let c = 0; c < channels; c++) {
          data[(row * w + column) * channels + c] = from[((row + top) * width + column + left) * channels + c] + bias[c];
        }
      }
    }
    return data;
  }

  /**
   * The result of a U-Net, h * w * channels numbers.
   *
   * `network` is { theta, statistics, norm }, with the names of one U-Net; `image` { data, h, w, channels }.
   */
  function apply(backend, network, image) {
    const { theta } = network;
    const skips = [];
    let x = pad(backend, image);
    for (let level = 1; level < LEVELS; level++) {
      x = block(backend, network, x, `down${level}`);
      skips.push(x);
      x = maxPool(backend, x);
    }
    x = block(backend, network, x, `down${LEVELS}`);
    for (let level = LEVELS - 1; level > 0; level--) {
      x = block(backend, network, upsampleAndJoin(backend, x, skips.pop()), `up${level}`);
    }
    const y = convolve(backend, x, theta.get("head/kernel"));
    free(backend, x);
    const data = crop(backend, y, image.h, image.w, theta.get("head/bias").data);
    free(backend, y);
    return data;
  }

  return { apply };
})();
