// @ts-check
"use strict";

// A coloured band over the picture where a result leaves the measurement: the root mean square of A^H (A x − y) around each
// pixel, as far as it is above noise.
// The server computes it, so a page without a server has no such control.
const Band = (app) => {
  const CACHE_SIZE = 60; // planes of bands that are kept
  const OPACITY = [0.6, 0.9]; // at the lowest and at the highest value
  const get = (id) => document.getElementById(id);
  const bands = new Map(); // slice and λ -> { plane, low, high, is_noise_known }
  const queue = { A: new Store.Newest(load), B: new Store.Newest(load) };
  const failed = new Set();
  let hasFailed = false; // the band that was asked for last

  const isOffered = Boolean(app.source.contradiction);
  const key = (place, lam) => `${Store.sliceKey(place)}|${Store.lamKey(lam)}`;

  async function load({ place, lam }) {
    const name = key(place, lam);
    if (bands.has(name)) return;
    try {
      bands.set(name, await app.source.contradiction(place, lam));
      if (bands.size > CACHE_SIZE) bands.delete(bands.keys().next().value);
      app.schedule();
    } catch (error) {
      if (!(error instanceof Source.ConnectionLost)) failed.add(name); // not asked for again with every draw
      app.reportFor(place, error);
      app.schedule();
    }
  }

  /** The band of a slot's image; null while it is switched off, not here yet, or the image is not the exact one. */
  function overlay(slot, image) {
    if (!isOffered || !app.state.band || !image || !image.exact) return null;
    const { entry } = image;
    const name = key(app.place(), entry.lam);
    const band = bands.get(name);
    hasFailed = failed.has(name);
    if (!band && !failed.has(name)) queue[slot].ask({ place: app.place(), lam: entry.lam });
    return band || null;
  }

  /** Writes a band into the RGBA bytes `pixels`: clear below `low`, full colour from `high` on. */
  function paint({ plane, low, high }, pixels) {
    Colors.paint(plane, low, high, "band", pixels);
    for (let i = 0; i < plane.length; i++) {
      const part = Math.min(1, (plane[i] - low) / (high - low));
      pixels[4 * i + 3] = part > 0 ? Math.round(255 * (OPACITY[0] + (OPACITY[1] - OPACITY[0]) * part)) : 0;
    }
  }

  /** The share of the pixels in which a band shows. */
  const share = ({ plane, low }) => plane.reduce((count, value) => count + (value > low), 0) / plane.length;

  /** `band` is that of the main view; null while it is computed, or where there is none. */
  function legend(band) {
    get("band").setAttribute("aria-pressed", String(app.state.band));
    const isPicture = ["single", "side", "flicker"].includes(app.state.mode);
    get("band").disabled = !isPicture; // errors and differences have colours of their own
    get("band-legend").hidden = !(isOffered && app.state.band && isPicture);
    get("band-legend").classList.toggle("waiting", !band);
    if (!band) {
      get("band-text").textContent = hasFailed
        ? "what the measurement contradicts could not be computed; press M twice to try again"
        : "computing what the measurement contradicts …";
      delete get("band-legend").dataset.share;
      return;
    }
    const { low, high, is_noise_known: isNoiseKnown } = band;
    const part = (100 * share(band)).toFixed(1);
    const { shows } = app.views.main.figure.dataset; // A or B; beside A, B has a share of its own
    get("band-text").textContent =
      `contradicted by the measurement, ${isNoiseKnown ? "above noise" : "noise unknown: all of it"}: ${part} % of ${shows}`;
    get("band-legend").querySelector(".bar").style.background = Colors.gradient("band");
    const texts = [low.toFixed(3), "", `≥ ${high.toFixed(3)}`];
    get("band-legend").querySelectorAll(".numbers span").forEach((span, i) => (span.textContent = texts[i]));
    get("band-legend").dataset.share = part;
  }

  function attach() {
    get("band").hidden = !isOffered;
    get("band").onclick = toggle;
  }

  function toggle() {
    failed.clear();
    if (isOffered) app.change({ band: !app.state.band });
  }

  return { attach, legend, overlay, paint, toggle };
};
