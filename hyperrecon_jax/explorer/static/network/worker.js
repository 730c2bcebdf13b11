// @ts-check
"use strict";

// The worker of a page that holds its network: it keeps the network and the images, and answers the page.
//
// A question is { id, name, args }, the answer { id, result } or { id, error }; { cancel: id } ends the work on a question,
// which is then answered by { id, cancelled: true }.
(() => {
  const MEASURED = 8; // slices whose measurements are kept

  class Cancelled extends Error {}

  const volumes = new Map(); // id -> [{ h, w, plane }], the images
  const measured = new Map(); // place -> its measured slice, in the order of last use
  const cancelled = new Set(); // ids of questions
  const channel = new MessageChannel();
  let network = null; // { kernels, settings, hypernetwork, tensors, task }

  function toBytes(base64) {
    const text = atob(base64);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
    return bytes;
  }

  /** Numbers of half precision, little-endian. */
  function fromHalf(bytes) {
    const view = new DataView(bytes.buffer);
    return Float32Array.from({ length: bytes.length / 2 }, (_, i) => Half.toNumber(view.getUint16(2 * i, true)));
  }

  function readTensors(names, numbers) {
    let start = 0;
    return new Map(
      names.map(({ name, shape }) => {
        const size = shape.reduce((total, side) => total * side, 1);
        const data = numbers.subarray(start, start + size);
        start += size;
        return [name, { shape, data }];
      }),
    );
  }

  /** The images of the page: levels of 8 or 16 bits, one image after the other. */
  function readImages({ data, bits, height: h, width: w }) {
    const { buffer } = toBytes(data);
    const levels = bits === 8 ? new Uint8Array(buffer) : new Uint16Array(buffer);
    const plane = (i) => Float32Array.from(levels.subarray(i * h * w, (i + 1) * h * w), (value) => value / (2 ** bits - 1));
    return Array.from({ length: levels.length / (h * w) }, (_, i) => ({ h, w, plane: plane(i) }));
  }

  function readMask({ data, h, w }) {
    const bytes = toBytes(data);
    return { h, w, mask: Uint8Array.from({ length: h * w }, (_, i) => (bytes[i >> 3] >> (7 - (i & 7))) & 1) };
  }

  async function open({ settings, hypernetwork, tensors, task, images, weights, wasm }) {
    volumes.set("test", readImages(images));
    network = {
      kernels: await Kernels.open(toBytes(wasm)),
      settings,
      hypernetwork,
      tensors: readTensors(tensors, fromHalf(toBytes(weights))),
      task: { ...task, fixed: task.fixed && readMask(task.fixed) },
    };
  }

  function add({ id, planes }) {
    volumes.set(id, planes);
  }

  function remove({ id }) {
    volumes.delete(id);
    for (const key of [...measured.keys()]) if (key.startsWith(`${id}|`)) measured.delete(key);
  }

  function readAcquisition(text) {
    if (!text) return null;
    const fields = Object.fromEntries(text.split(",").map((part) => part.split("=")));
    return { acceleration: Number(fields.acceleration), sigma: Number(fields.sigma), mask: fields.mask };
  }

  function find({ volume, position, acquisition }) {
    const key = `${volume}|${position}|${acquisition || ""}`;
    if (!volumes.has(volume)) throw new Error("This volume is not open any more.");
    const image = volumes.get(volume)[position];
    const slice = measured.get(key) || Measurement.measure(network.kernels, image, network.task, readAcquisition(acquisition), position + 1);
    measured.delete(key);
    measured.set(key, slice);
    if (measured.size > MEASURED) measured.delete(measured.keys().next().value);
    return { image, slice };
  }

  function score(plane, { h, w, plane: truth }) {
    return Scores.compare(network.kernels, plane, truth, h, w);
  }

  /** The network's input, the truth, the scores of the input, and what noise alone gives. */
  function measure(place) {
    const { image, slice } = find(place);
    const input = Measurement.magnitude(slice.image);
    const noise = Measurement.expectedJ(slice, network.task, readAcquisition(place.acquisition));
    return { height: image.h, width: image.w, input, truth: image.plane.slice(), metrics: score(input, image), noise };
  }

  async function reconstruct({ place, lam }, pause) {
    const start = performance.now();
    const { image, slice } = find(place);
    const plane = await Network.reconstruct(network, lam, slice, pause);
    const metrics = { ...score(plane, image), data_consistency: Measurement.dataConsistency(network.kernels, plane, slice) };
    return { plane, metrics, milliseconds: performance.now() - start };
  }

  /** What a test compares with the same measurement elsewhere. */
  function inspect(place) {
    const { y, mask, condition } = find(place).slice;
    return { y, mask, condition };
  }

  const ANSWERS = { add, inspect, measure, open, reconstruct, remove };

  /** Lets the messages that wait be read, and ends the work that is no longer wanted. */
  async function pauseFor(id) {
    await new Promise((resolve) => {
      channel.port1.onmessage = resolve;
      channel.port2.postMessage(null);
    });
    if (cancelled.has(id)) throw new Cancelled();
  }

  let last = Promise.resolve(); // the questions are answered in turn

  async function answer({ id, name, args }) {
    try {
      await pauseFor(id);
      postMessage({ id, result: await ANSWERS[name](args, () => pauseFor(id)) });
    } catch (error) {
      postMessage(error instanceof Cancelled ? { id, cancelled: true } : { id, error: error.message });
    }
    cancelled.delete(id);
  }

  self.onmessage = ({ data }) => {
    if ("cancel" in data) cancelled.add(data.cancel);
    else last = last.then(() => answer(data));
  };
})();
