// @ts-check
"use strict";

// The hypernetwork: from loss weights and the condition of an acquisition to the weights of the main network.
// models/hypernet.py says what the kinds of heads are. A tensor is { shape, data }, with a name as in a file of variables.
const Hypernetwork = (() => {
  const SLOPE = 0.01; // of the leaky ReLU

  /** The weight of each loss term (`hyperparams.coefficients`). */
  function coefficients(lam) {
    let rest = 1;
    const shares = lam.map((value) => {
      const share = value * rest;
      rest *= 1 - value;
      return share;
    });
    shares.push(rest);
    return lam.length === 1 ? shares.reverse() : shares;
  }

  function encode(values, encoding) {
    if (encoding === "coefficients") return values;
    const angles = values.map((value) => (Math.PI / 2) * value);
    return [...angles.map(Math.cos), ...angles.map(Math.sin)];
  }

  /** x W + b, for the layer of a name. */
  function dense(tensors, name, x) {
    const { data: kernel } = tensors.get(`${name}/kernel`);
    const result = new Float64Array(tensors.get(`${name}/bias`).data);
    const size = result.length;
    for (let row = 0; row < x.length; row++) {
      const value = x[row];
      for (let i = 0; i < size; i++) result[i] += value * kernel[row * size + i];
    }
    return result;
  }

  function softmax(x) {
    const largest = Math.max(...x);
    const powers = x.map((value) => Math.exp(value - largest));
    const sum = powers.reduce((total, value) => total + value, 0);
    return powers.map((value) => value / sum);
  }

  /**
   * The weights of the main network, by name: those that are generated, and those that are learned.
   *
   * `network` is { hypernetwork: { kind, encoding, depth, leaves } or null, tensors }; a leaf is { path, shape }.
   */
  function generate({ hypernetwork, tensors }, lam, condition) {
    const theta = new Map();
    for (const [name, tensor] of tensors) {
      if (name.startsWith("params/main/")) theta.set(name.slice("params/main/".length), tensor);
    }
    const { kind, encoding, depth, leaves } = hypernetwork;
    let h = encode([...coefficients(lam), ...condition], encoding);
    for (let i = 0; i < (kind === "mixture" ? 0 : depth); i++) {
      h = dense(tensors, `params/hyper/hidden${i}`, h).map((value) => (value < 0 ? SLOPE * value : value));
    }
    for (const { path, shape } of leaves) {
      const name = path.join(".");
      let features = h;
      if (kind === "low_rank") features = dense(tensors, `params/hyper/reduced:${name}`, h);
      if (kind === "mixture") features = softmax(dense(tensors, `params/hyper/mixing:${name}`, h));
      const data = new Float32Array(dense(tensors, `params/hyper/head:${name}`, features));
      theta.set(path.join("/"), { shape, data });
    }
    return theta;
  }

  return { generate };
})();
