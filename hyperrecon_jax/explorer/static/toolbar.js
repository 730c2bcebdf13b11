// @ts-check
"use strict";

// The buttons and fields around the images, and which metric is drawn over λ.
const Toolbar = (() => {
  const ZOOM = 1.25; // one press
  const get = (id) => document.getElementById(id);
  const all = (selector) => [...document.querySelectorAll(selector)];

  function onNumber(app, id, use) {
    get(id).addEventListener("input", ({ target }) => {
      if (target.value !== "" && Number.isFinite(target.valueAsNumber)) use(target.valueAsNumber);
    });
  }

  function flickerTimer(app) {
    let timer = null;
    const restart = () => {
      clearInterval(timer);
      if (get("flicker-timer").checked) timer = setInterval(turn, 1000 * get("flicker-seconds").value);
    };
    const turn = () => app.state.mode === "flicker" && app.changeOver();
    get("flicker-timer").onchange = restart;
    get("flicker-seconds").onchange = restart;
    get("flicker-swap").onclick = app.changeOver;
  }

  function attach(app) {
    const { state } = app;
    for (const button of all("button[data-mode]")) button.onclick = () => app.setMode(button.dataset.mode);
    for (const button of all("button[data-tool]")) button.onclick = () => app.change({ tool: button.dataset.tool });
    for (const button of all("button[data-slot]")) button.onclick = () => app.change({ active: button.dataset.slot });
    get("copy-to-b").onclick = app.copyToB;
    get("swap").onclick = app.swap;
    get("auto-window").onclick = app.autoWindow;
    get("reset").onclick = app.reset;
    get("zoom-in").onclick = () => app.zoomBy(ZOOM);
    get("zoom-out").onclick = () => app.zoomBy(1 / ZOOM);
    get("smooth").onchange = ({ target }) => app.change({ smooth: target.checked });
    get("profile-close").onclick = app.closeProfile;
    get("copy-link").onclick = app.copyLink;
    get("help-button").onclick = app.help;
    get("auto-gain").onclick = () => app.change({ gain: { ...state.gain, [state.mode]: null } });
    onNumber(app, "gain", (power) => app.change({ gain: { ...state.gain, [state.mode]: 10 ** power } }));
    onNumber(app, "window", (width) => width > 0 && app.change({ window: width }));
    onNumber(app, "level", (level) => app.change({ level }));
    for (const button of all("#toolbar button, #slots button")) button.addEventListener("click", releaseKeys);
    document.addEventListener("focusout", () => app.schedule()); // a field that was typed in shows again what is used
    flickerTimer(app);
    addLandscapeChoice(app);
  }

  /** After a click with a pointer the keys are the page's again; who works with the keyboard keeps the focus. */
  function releaseKeys(event) {
    if (event.detail) event.currentTarget.blur();
  }

  function addLandscapeChoice(app) {
    const { evaluation } = app.run;
    const names = evaluation ? Object.keys(evaluation.values) : [];
    get("landscape-choice").hidden = !names.length;
    get("landscape-metric").replaceChildren(...names.map((name) => new Option(Readouts.describe(name).label, name)));
    get("landscape-metric").onchange = ({ target }) => app.change({ metric: target.value });
    app.state.metric = names[0] || null;
  }

  return { attach };
})();
