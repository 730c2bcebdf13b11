// @ts-check
"use strict";

// Where images and figures come from: a server (`LiveSource`), or the network inside this page (network/offline.js).
// Both offer run, slice, reconstruct, diverse, best, upload, indices, snap, step; only the live one exports.
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
  const clamp = (value) => Math.min(1, Math.max(0, value));

  /** As `ask`, for an answer that may take long; `heard` gets how far it is (`Jobs.follow`). */
  function askLong(path, fields, signal, heard) {
    const job = Jobs.name();
    const progress = async () => body(await ask(`api/progress?${query({ job })}`), "json");
    const drop = () => ask(`api/drop?${query({ job })}`, { method: "POST", keepalive: true });
    const work = () => ask(`${path}?${query(fields)}&${query({ job })}`, { signal });
    return Jobs.follow(work, { signal, heard, progress, drop });
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
  }

  /** A page that holds its network has `Offline` (network/offline.js). */
  const open = () => (typeof Offline === "undefined" ? new LiveSource() : new Offline.OfflineSource());

  return { AnyLambda, ConnectionLost, distance, isAbort, open };
})();
