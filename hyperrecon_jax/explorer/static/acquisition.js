// @ts-check
"use strict";

// How images are measured, for a run with a range of acquisitions: three controls, or what was read off measured k-space.
const Acquisition = (() => {
  const FIELDS = ["acceleration", "sigma", "mask"];
  const get = (id) => document.getElementById(id);

  /** As the server and the address have it: "acceleration=4,sigma=0.02,mask=random_lines". */
  const text = (acquisition) => FIELDS.map((name) => `${name}=${acquisition[name]}`).join();

  /** For people: "4-fold, noise 0.02, random lines". */
  function inWords(written) {
    const { acceleration, sigma, mask } = read(written);
    return `${acceleration}-fold, noise ${sigma}, ${mask.replaceAll("_", " ")}`;
  }

  /** The fields of a text, as texts. */
  const read = (written) => Object.fromEntries((written || "").split(",").map((part) => part.split("=")));

  function isValid(name, value, limits) {
    if (name === "mask") return limits.mask.includes(value);
    return Number.isFinite(value) && value >= limits[name][0] && value <= limits[name][1];
  }

  /** The acquisition of a text; null if it is none within the limits. */
  function parse(written, { limits }) {
    const fields = read(written);
    const values = { acceleration: parseFloat(fields.acceleration), sigma: parseFloat(fields.sigma), mask: fields.mask };
    return FIELDS.every((name) => isValid(name, values[name], limits)) ? values : null;
  }

  /** The part of a place that says how the slice is measured; nothing where there is no choice. */
  function part(app) {
    const { acquisitions, volumes } = app.run;
    const volume = volumes.find(({ id }) => id === app.state.volume);
    return acquisitions && volume && volume.choices.length ? { acquisition: text(app.state.acquisition) } : {};
  }

  function attach(app) {
    const { acquisitions } = app.run;
    get("acquisition").hidden = !acquisitions;
    if (!acquisitions) return;
    const { limits } = acquisitions;
    get("landscape-choice").title += ", measured at the middle of the range of acquisitions";
    get("acquisition-mask").replaceChildren(...limits.mask.map((name) => new Option(name.replaceAll("_", " "), name)));
    for (const name of ["acceleration", "sigma"]) {
      Object.assign(get(`acquisition-${name}`), { min: limits[name][0], max: limits[name][1] });
      get(`acquisition-${name}`).title += `, from ${limits[name].join(" to ")}`;
    }
    for (const name of FIELDS) {
      get(`acquisition-${name}`).onchange = ({ target }) => {
        const value = name === "mask" ? target.value : target.valueAsNumber;
        if (isValid(name, value, limits)) app.setAcquisition({ ...app.state.acquisition, [name]: value });
        app.schedule();
      };
    }
  }

  function show(app) {
    if (!app.run.acquisitions) return;
    const { choices, acquisition } = app.volume(app.state.volume);
    for (const name of FIELDS) {
      const input = get(`acquisition-${name}`);
      input.parentElement.hidden = !choices.includes(name);
      // What is being typed is not rewritten under the user's fingers.
      if (document.activeElement !== input) input.value = app.state.acquisition[name];
    }
    get("acquisition-controls").hidden = !choices.length;
    get("acquisition-note").textContent = acquisition;
    get("acquisition-note").hidden = !acquisition;
  }

  return { attach, inWords, parse, part, show, text };
})();
