// @ts-check
"use strict";

// The state in the address: what is written after the `#`, so that a link opens the same view.
const Link = (() => {
  const NUMBER = /^-?\d*\.?\d+(e-?\d+)?$/i;
  const short = (value) => String(Number(value.toFixed(4)));
  const list = (values) => values.map(short).join(",");

  function numbers(text, count) {
    const parts = (text || "").split(",");
    return parts.length === count && parts.every((part) => NUMBER.test(part)) ? parts.map(Number) : null;
  }

  function number(text, low, high) {
    const [value] = numbers(text, 1) || [NaN];
    return value >= low && value <= high ? value : null;
  }

  const gain = (text) => number(text, 1, 200);
  const unit = (values) => (values && values.every((value) => value >= 0 && value <= 1) ? values : null);
  const pair = (values) => (values ? [values.slice(0, 2), values.slice(2)] : null);
  const oneOf = (text, choices) => (choices.includes(text) ? text : null);

  function write(state) {
    const fields = new URLSearchParams({
      volume: state.volume,
      slice: String(state.index),
      a: list(state.lam.A),
      b: list(state.lam.B),
      active: state.active,
      mode: state.mode,
      window: short(state.window),
      level: short(state.level),
      zoom: short(state.zoom),
      pan: list(state.pan),
      tool: state.tool,
    });
    if (state.mode === "flicker") fields.set("flicker", state.flicker);
    if (state.metric) fields.set("metric", state.metric);
    for (const [mode, gain] of Object.entries(state.gain)) if (gain !== null) fields.set(`gain_${mode}`, short(gain));
    if (state.acquisition) fields.set("acquisition", Acquisition.text(state.acquisition));
    if (state.band) fields.set("band", "1");
    if (state.smooth) fields.set("smooth", "1");
    if (state.profile) fields.set("profile", list(state.profile.flat()));
    return `#${fields.toString().replaceAll("%2C", ",").replaceAll("%3D", "=")}`;
  }

  /** The parts of a state that the hash gives and that make sense; the rest stays as it was. */
  function read(hash, { axes, modes, metrics, acquisitions }) {
    const fields = new URLSearchParams(hash.replace(/^#/, ""));
    const get = (name) => fields.get(name);
    const view = {
      volume: get("volume"),
      acquisition: acquisitions && Acquisition.parse(get("acquisition"), acquisitions),
      index: number(get("slice"), 0, 1e6),
      A: unit(numbers(get("a"), axes)),
      B: unit(numbers(get("b"), axes)),
      active: oneOf(get("active"), ["A", "B"]),
      mode: oneOf(get("mode"), modes),
      window: number(get("window"), 1e-4, 1e6),
      level: number(get("level"), -1e6, 1e6),
      zoom: number(get("zoom"), 1, 40),
      pan: unit(numbers(get("pan"), 2)),
      band: fields.has("mode") ? get("band") === "1" : null,
      smooth: fields.has("mode") ? get("smooth") === "1" : null,
      profile: pair(unit(numbers(get("profile"), 4))),
      tool: oneOf(get("tool"), ["pan", "window", "profile"]),
      flicker: oneOf(get("flicker"), ["A", "B"]),
      metric: oneOf(get("metric"), metrics),
      gain: fields.has("mode") ? { difference: gain(get("gain_difference")), error: gain(get("gain_error")) } : null,
    };
    return Object.fromEntries(Object.entries(view).filter(([, value]) => value !== null));
  }

  /** Writes the state into the address; a page that a notebook holds has none. */
  function save(state) {
    try {
      history.replaceState(null, "", write(state));
    } catch (error) {
      if (error.name !== "SecurityError") throw error;
    }
  }

  return { read, save };
})();
