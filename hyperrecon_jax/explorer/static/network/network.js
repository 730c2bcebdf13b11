// @ts-check
"use strict";

// The main networks: the U-Net alone (models/unet.py) and the unrolled network (models/unrolled.py).
const Network = (() => {
  const SCALE_QUANTILE = 0.99;
  const scaledSlices = new WeakMap(); // measured slice -> it as a network takes it, the same for each lambda

  /** A quantile of numbers, with linear interpolation between two of them. */
  function quantile(values, part) {
    const sorted = Float32Array.from(values).sort();
    const position = part * (sorted.length - 1);
    const below = Math.floor(position);
    const above = Math.min(below + 1, sorted.length - 1);
    return sorted[below] + (sorted[above] - sorted[below]) * (position - below);
  }

  /** `net_input.intensity_scale`: a high quantile, or the maximum if that is 0. */
  function intensityScale(image) {
    return quantile(image, SCALE_QUANTILE) || image.reduce((most, value) => Math.max(most, value), 0);
  }

  /** A slice divided by its intensity if the network normalizes, and that: { scaled, scale }. */
  function divideByIntensity(measured, normalize) {
    if (!scaledSlices.has(measured)) {
      const scale = normalize ? intensityScale(Measurement.magnitude(measured.image)) : 1;
      scaledSlices.set(measured, { scale, scaled: Measurement.divide(measured, scale || 1) });
    }
    return scaledSlices.get(measured);
  }

  /** Real and imaginary part side by side, as a U-Net takes them. */
  function toChannels({ re, im }) {
    const data = new Float32Array(2 * re.length);
    for (let i = 0; i < re.length; i++) {
      data[2 * i] = re[i];
      data[2 * i + 1] = im[i];
    }
    return data;
  }

  /** Adds what a U-Net gives to an image, in place. */
  function addChannels({ re, im }, channels) {
    for (let i = 0; i < re.length; i++) {
      re[i] += channels[2 * i];
      im[i] += channels[2 * i + 1];
    }
  }

  /** The entries of a map whose names start with `prefix`, without it; of stacked tensors the part with this index. */
  function select(map, prefix, index = null) {
    const selected = new Map();
    for (const [name, { shape, data }] of map) {
      if (!name.startsWith(prefix)) continue;
      const size = data.length / shape[0];
      const part = { shape: shape.slice(1), data: data.subarray(index * size, (index + 1) * size) };
      selected.set(name.slice(prefix.length), index === null ? { shape, data } : part);
    }
    return selected;
  }

  async function applyUNet({ kernels, settings, statistics }, theta, measured) {
    const { h, w } = measured;
    const { scale, scaled } = divideByIntensity(measured, settings.normalize);
    const data = toChannels(scaled.image);
    const network = { theta, statistics, norm: settings.norm };
    const result = UNet.apply(kernels, network, { data, h, w, channels: 2 });
    const input = settings.residual ? Measurement.magnitude(measured.image) : null;
    return result.map((value, i) => value * scale + (input ? input[i] : 0));
  }

  async function applyUnrolled({ kernels, settings, statistics }, theta, measured, pause) {
    const { h, w } = measured;
    const { scale, scaled } = divideByIntensity(measured, settings.normalize);
    let z = scaled.image;
    for (let i = 0; i < settings.iterations; i++) {
      await pause();
      const weight = Math.exp(theta.get("iterations/log_weight").data[i]);
      const u = Measurement.moveTowards(kernels, scaled, z, weight);
      const network = {
        theta: select(theta, "iterations/unet/", i),
        statistics: select(statistics, "iterations/unet/", i),
        norm: settings.norm,
      };
      const change = UNet.apply(kernels, network, { data: toChannels(u), h, w, channels: 2 });
      addChannels(u, change);
      z = u;
    }
    return Measurement.magnitude(z).map((value) => value * scale);
  }

  /**
   * The reconstruction of a measured slice, a Float32Array of h * w.
   *
   * `pause` is awaited between the parts of the work. What it throws ends the work.
   */
  function reconstruct(network, lam, measured, pause) {
    const theta = Hypernetwork.generate(network, lam, measured.condition);
    const apply = network.settings.network === "unrolled" ? applyUnrolled : applyUNet;
    return apply({ ...network, statistics: select(network.tensors, "batch_stats/") }, theta, measured, pause);
  }

  return { reconstruct };
})();
