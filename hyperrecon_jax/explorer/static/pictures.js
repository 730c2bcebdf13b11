// @ts-check
"use strict";

// What the main view shows of a state: a plane with its window and its colours, and a caption.
const Pictures = (app) => {
  const { state } = app;
  const memo = Memo();

  /** What a picture needs of its volume. */
  function frame() {
    const { width, height, aspect, pixel, letters } = app.size();
    return { width, height, aspect, pixel, letters };
  }

  function gray(plane) {
    const { level, window } = state;
    return { plane, ...frame(), low: level - window / 2, high: level + window / 2, colours: "gray" };
  }

  function differing(first, second, combine) {
    return memo("map", [first, second, combine], () => first.map((value, i) => combine(value, second[i])));
  }

  const signed = (a, b) => a - b;
  const absolute = (a, b) => Math.abs(a - b);

  function percentile(plane, part) {
    const sorted = Float32Array.from(plane).sort();
    return sorted[Math.round(part * (sorted.length - 1))];
  }

  /** A picture of errors, in the colours of its mode; the gain is set from the first one that is exact. */
  function errorMap(plane, exact) {
    if (state.gain[state.mode] === null && exact) state.gain[state.mode] = gainFor(plane);
    const limit = 1 / (state.gain[state.mode] || 10);
    const isSigned = state.mode === "difference";
    const colours = isSigned ? "berlin" : "inferno";
    return { plane, ...frame(), low: isSigned ? -limit : 0, high: limit, colours };
  }

  function gainFor(plane) {
    const reach = percentile(plane.map(Math.abs), 0.995);
    return reach > 0 ? Math.min(200, Math.max(1, 1 / reach)) : 10;
  }

  /** What the main view shows: { picture, shows, text, image } or { message } where there is nothing. */
  function mainContent(images) {
    const { mode, active } = state;
    if (mode === "difference") return differenceContent(images);
    if (mode === "error") return errorContent(images[active], active);
    const slot = mode === "flicker" ? state.flicker : mode === "side" ? "A" : active;
    return slotContent(slot, images[slot]);
  }

  function slotContent(slot, image) {
    const text = `${slot}  λ = ${Lambda.format(state.lam[slot])}`;
    const band = app.band.overlay(slot, image);
    const picture = image && { ...gray(image.plane), band, paintBand: app.band.paint };
    return { shows: slot, text, image, picture };
  }

  function differenceContent({ A, B }) {
    const lams = ["A", "B"].map((slot) => Lambda.format(state.lam[slot]));
    const text = `A − B  λ = ${lams.join(state.lam.A.length > 1 ? " and " : ", ")}`;
    if (!A || !B) return { shows: "A-B", text };
    const picture = errorMap(differing(A.plane, B.plane, signed), A.exact && B.exact);
    return { shows: "A-B", text, picture, image: A.exact && !B.exact ? B : A };
  }

  function errorContent(image, slot) {
    const text = `|${slot} − truth|  λ = ${Lambda.format(state.lam[slot])}`;
    const loaded = app.slice();
    if (loaded && !loaded.truth) return { shows: "error", text, message: "No truth is known for this image." };
    if (!loaded || !image) return { shows: "error", text };
    const picture = errorMap(differing(image.plane, loaded.truth, absolute), image.exact);
    return { shows: "error", text, image, picture };
  }

  /** Window and level that clip next to nothing of the reconstruction and of the truth, where that is known. */
  function setWindow(images) {
    const loaded = app.slice();
    const image = images[state.active] || images.A;
    if (!loaded || !image || !image.exact) return;
    const planes = [image.plane, loaded.truth].filter(Boolean);
    const low = Math.min(...planes.map((plane) => percentile(plane, 0.002)));
    const high = Math.max(...planes.map((plane) => percentile(plane, 0.998)));
    const round = (value) => Number(value.toFixed(3));
    const [window, level] = [Math.max(high - low, 0.01), (low + high) / 2].map(round);
    app.change({ needsWindow: false, window, level });
  }

  return { gray, mainContent, setWindow, slotContent };
};
