// @ts-check
"use strict";

// Where images and figures come from: a server (`LiveSource`), or the network inside this page (network/offline.js).
// Both offer run, slice, reconstruct, diverse, best, upload, remove, export, indices, snap, step; the live one more.
const Source = (() => {
  /** The server did not answer at all, or a proxy in its place, as opposed to answering with an error. */
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
    let message;
    try {
      message = (await response.json()).error;
    } catch {
      message = null;
    }
    const text = message || `The server answered with status ${response.status}.`;
    // the explorer puts each of its errors into a sentence: this one is of a proxy, which does not reach it
    throw !message && response.status >= 500 ? new ConnectionLost(text) : new Error(text);
  }

  // A connection that breaks within a body fails after `fetch` has returned.
  async function body(response, read) {
    try {
      return await response[read]();
    } catch (error) {
      throw isAbort(error) ? error : new ConnectionLost(error.message);
    }
  }

  async function file(response) {
    const disposition = response.headers.get("Content-Disposition") || "";
    const match = /filename(?:\*=UTF-8''|="?)([^";]+)/.exec(disposition);
    return { name: match ? decodeURIComponent(match[1]) : "export", blob: await body(response, "blob") };
  }

  /** The name of this tab: volumes belong to the tab that has added them. It outlives a reload. */
  function tabName() {
    const newName = crypto.getRandomValues(new Uint32Array(4)).join("-");
    try {
      const name = sessionStorage.getItem("tab") || newName;
      sessionStorage.setItem("tab", name);
      return name;
    } catch {
      return newName; // the frame of a notebook may have no storage
    }
  }

  const query = (fields) => new URLSearchParams(fields).toString();
  const distance = (a, b) => Math.hypot(...a.map((value, axis) => value - b[axis]));
  const clamp = (value) => Math.min(1, Math.max(0, value));

  /** As `ask`, for an answer that may take long; `heard` gets how far it is (`Jobs.follow`). */
  function askLong(path, fields, signal = null, onProgress = null) {
    const job = Jobs.name();
    const progress = async () => body(await ask(`api/progress?${query({ job })}`), "json");
    const drop = () => ask(`api/drop?${query({ job })}`, { method: "POST", keepalive: true });
    const work = () => ask(`${path}?${query(fields)}&${query({ job })}`, { signal });
    return Jobs.follow(work, { signal, onProgress, progress, drop });
  }

  /** What sources share: all slices of a volume, and every λ in steps of a thousandth. */
  class AnyLambda {
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

  class LiveSource extends AnyLambda {
    constructor() {
      super();
      this.live = true;
      this.tab = tabName();
    }

    /** The run, with the volumes of this tab and that of the address. */
    async run(signal) {
      const volume = new URLSearchParams(location.hash.slice(1)).get("volume") || "";
      return body(await ask(`api/run?${query({ tab: this.tab, volume })}`, { signal }), "json");
    }

    async slice(place, signal, onProgress) {
      const response = await askLong("api/slice", place, signal, onProgress);
      const info = JSON.parse(response.headers.get("X-Info"));
      const planes = new Float32Array(await body(response, "arrayBuffer"));
      const pixels = info.height * info.width;
      const { height, width, metrics, noise } = info;
      const truth = info.truth ? planes.subarray(pixels, 2 * pixels) : null;
      return { ...place, height, width, metrics, noise, input: planes.subarray(0, pixels), truth };
    }

    async reconstruct(place, lam, signal, onProgress) {
      const response = await askLong("api/reconstruct", { ...place, lam: lam.join(",") }, signal, onProgress);
      const { metrics, milliseconds } = JSON.parse(response.headers.get("X-Info"));
      return { ...place, lam, metrics, milliseconds, plane: new Float32Array(await body(response, "arrayBuffer")) };
    }

    /** What of a reconstruction the measurement contradicts: { plane, low, high, is_noise_known }. */
    async contradiction(place, lam) {
      const response = await askLong("api/contradiction", { ...place, lam: lam.join(",") });
      const { low, high, is_noise_known } = JSON.parse(response.headers.get("X-Info"));
      return { low, high, is_noise_known, plane: new Float32Array(await body(response, "arrayBuffer")) };
    }

    async diverse(place, count, signal, onProgress) {
      return body(await askLong("api/diverse", { ...place, count }, signal, onProgress), "json");
    }

    async best(place, metric, signal, onProgress) {
      return body(await askLong("api/best", { ...place, metric }, signal, onProgress), "json");
    }

    /** The volumes of a file, or of the series in several files. */
    async upload(files, kind) {
      const [file] = files;
      const { tab } = this;
      const send = async (fields, content) =>
        body(await ask(`api/volumes?${query({ ...fields, tab })}`, { method: "POST", body: content }), "json");
      if (files.length === 1) return [await send({ name: file.name, kind }, file)];
      const head = JSON.stringify(files.map(({ name, path, size }) => [path || name, size]));
      return send({ files: files.length, kind }, new Blob([head, "\n", ...files]));
    }

    /** The volumes of the same files in another plane, or another volume of the file; first the one that shows the same. */
    async cut(volume, plane, frame) {
      const fields = { volume, plane, frame, tab: this.tab };
      return body(await ask(`api/cut?${query(fields)}`, { method: "POST" }), "json");
    }

    /** The same for the id of a volume in a link; an error if its files are not open any more. */
    async restore(volume) {
      return body(await ask(`api/restore?${query({ volume, tab: this.tab })}`, { method: "POST" }), "json");
    }

    async remove(volume) {
      await ask(`api/remove?${query({ volume, tab: this.tab })}`, { method: "POST" });
    }

    async export(place, lams, fields) {
      const settings = lams.map((lam) => `lam=${lam.join(",")}`).join("&");
      return file(await ask(`api/export?${query({ ...place, ...fields })}&${settings}`));
    }

    /** All slices of a volume in one file, or with no `format` the table of their scores. */
    async exportAll({ volume, acquisition }, lam, fields, signal, onProgress) {
      const path = fields.format ? "api/export-volume" : "api/export-scores";
      const selected = acquisition ? { acquisition } : {};
      return file(await askLong(path, { volume, ...selected, lam: lam.join(","), ...fields }, signal, onProgress));
    }
  }

  /** A page that holds its network has `Offline` (network/offline.js). */
  const open = () => (typeof Offline === "undefined" ? new LiveSource() : new Offline.OfflineSource());

  return { AnyLambda, ConnectionLost, distance, isAbort, open };
})();
