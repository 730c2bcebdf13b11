// @ts-check
"use strict";

// Where images and figures come from: a server (`LiveSource`), or tables inside this page (`StaticSource`).
// Both offer run, slice, reconstruct, diverse, best, indices, label, snap, step; only the live one uploads and exports.
const Source = (() => {
  /** The server did not answer at all, as opposed to answering with an error. */
  class ConnectionLost extends Error {}

  const isAbort = (error) => error.name === "AbortError";

  async function ask(path, options) {
    let response;
    try {
      response = await fetch(path, { cache: "no-store", headers: Token.headers, ...options });
    } catch (error) {
      throw isAbort(error) ? error : new ConnectionLost(error.message);
    }
    if (response.ok) return response;
    let told;
    try {
      told = (await response.json()).error;
    } catch {
      told = null;
    }
    throw new Error(told || `The server answered with status ${response.status}.`);
  }

  // A connection that breaks within a body fails after `fetch` has returned.
  async function body(response, read) {
    try {
      return await response[read]();
    } catch (error) {
      throw isAbort(error) ? error : new ConnectionLost(error.message);
    }
  }

  const query = (fields) => new URLSearchParams(fields).toString();
  const distance = (one, other) => Math.hypot(...one.map((value, axis) => value - other[axis]));
  const nearest = (lams, lam) =>
    lams.reduce((best, entry) => (distance(entry, lam) < distance(best, lam) ? entry : best), lams[0]);
  const clamp = (value) => Math.min(1, Math.max(0, value));

  /** As `ask`, for an answer that may take long; `heard` gets how far it is (`Jobs.follow`). */
  function askLong(path, fields, signal, heard) {
    const job = Jobs.name();
    const progress = async () => body(await ask(`api/progress?${query({ job })}`), "json");
    const drop = () => ask(`api/drop?${query({ job })}`, { method: "POST", keepalive: true });
    const work = () => ask(`${path}?${query(fields)}&${query({ job })}`, { signal });
    return Jobs.follow(work, { signal, heard, progress, drop });
  }

  class LiveSource {
    constructor() {
      this.live = true;
    }

    async run(signal) {
      return body(await ask("api/run", { signal }), "json");
    }

    async slice(place, signal, heard) {
      const response = await askLong("api/slice", place, signal, heard);
      const info = JSON.parse(response.headers.get("X-Info"));
      const planes = new Float32Array(await body(response, "arrayBuffer"));
      const pixels = info.height * info.width;
      const { height, width, metrics } = info;
      const truth = info.truth ? planes.subarray(pixels, 2 * pixels) : null;
      return { ...place, height, width, metrics, input: planes.subarray(0, pixels), truth };
    }

    async reconstruct(place, lam, signal) {
      const response = await askLong("api/reconstruct", { ...place, lam: lam.join(",") }, signal);
      const { metrics, milliseconds } = JSON.parse(response.headers.get("X-Info"));
      return { ...place, lam, metrics, milliseconds, plane: new Float32Array(await body(response, "arrayBuffer")) };
    }

    async diverse(place, count, signal, heard) {
      return body(await askLong("api/diverse", { ...place, count }, signal, heard), "json");
    }

    async best(place, metric, signal, heard) {
      return body(await askLong("api/best", { ...place, metric }, signal, heard), "json");
    }

    /** The volumes of a file, or of the series in several files. */
    async upload(files, kind, plane) {
      const [file] = files;
      const send = async (fields, content) =>
        body(await ask(`api/volumes?${query({ ...fields, plane })}`, { method: "POST", body: content }), "json");
      if (files.length === 1) return [await send({ name: file.name, kind }, file)];
      const head = JSON.stringify(files.map(({ name, path, size }) => [path || name, size]));
      return send({ files: files.length, kind }, new Blob([head, "\n", ...files]));
    }

    async export(place, lams, format, shades) {
      const settings = lams.map((lam) => `lam=${lam.join(",")}`).join("&");
      const response = await ask(`api/export?${query({ ...place, format, ...shades })}&${settings}`);
      const told = response.headers.get("Content-Disposition") || "";
      const name = /filename(?:\*=UTF-8''|="?)([^";]+)/.exec(told);
      return { name: name ? decodeURIComponent(name[1]) : `slice.${format}`, blob: await body(response, "blob") };
    }

    indices(volume) {
      return Array.from({ length: volume.slices }, (_, index) => index);
    }

    label() {
      return "";
    }

    snap(lam) {
      return lam.map((value) => Math.round(clamp(value) * 1000) / 1000);
    }

    step(lam, axis, change) {
      return this.snap(lam.map((value, k) => (k === axis ? value + change : value)));
    }
  }

  function decode(base64, [low, high]) {
    const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    const unit = (high - low) / 65535;
    return Float32Array.from({ length: bytes.length / 2 }, (_, i) => low + view.getUint16(2 * i, true) * unit);
  }

  class StaticSource {
    constructor(exported) {
      this.live = false;
      this.exported = exported;
    }

    async run() {
      return this.exported.run;
    }

    find({ volume, index }) {
      const found = this.exported.slices.find((slice) => slice.volume === volume && slice.index === Number(index));
      if (!found) throw new Error("This page does not hold that slice.");
      return found;
    }

    async slice(place) {
      const { height, width, scale, input, truth, metrics } = this.find(place);
      const planes = { input: decode(input, scale), truth: truth ? decode(truth, scale) : null };
      return { ...place, height, width, metrics: metrics || {}, ...planes };
    }

    at(lam) {
      return this.exported.grid.indexOf(nearest(this.exported.grid, lam));
    }

    async reconstruct(place, lam) {
      const slice = this.find(place);
      const { data, metrics } = slice.reconstructions[this.at(lam)];
      return { ...place, lam, metrics: metrics || {}, milliseconds: 0, plane: decode(data, slice.scale) };
    }

    async diverse(place, count) {
      const lams = (this.find(place).diverse || []).slice(0, count);
      return { lams, criterion: lams.length ? "Chosen when this page was made." : "None came with this page." };
    }

    async best(place, metric) {
      const slice = this.find(place);
      const lam = (slice.best || {})[metric];
      if (!lam) throw new Error("This page does not hold the best λ by that metric.");
      return { lam, value: slice.reconstructions[this.at(lam)].metrics[metric] };
    }

    indices(volume) {
      const own = this.exported.slices.filter((slice) => slice.volume === volume.id);
      return own.map((slice) => slice.index).sort((one, other) => one - other);
    }

    label(place) {
      return this.find(place).label || "";
    }

    snap(lam) {
      return [...nearest(this.exported.grid, lam)];
    }

    /** The next λ along an axis: rounding a small change to the grid would stay where it is. */
    step(lam, axis, change) {
      const ahead = this.exported.grid.filter((entry) => (entry[axis] - lam[axis]) * change > 1e-9);
      const wanted = lam.map((value, k) => (k === axis ? value + change : value));
      return ahead.length ? [...nearest(ahead, wanted)] : [...lam];
    }
  }

  const open = () => (window.EXPORTED ? new StaticSource(window.EXPORTED) : new LiveSource());

  return { ConnectionLost, distance, isAbort, open };
})();
