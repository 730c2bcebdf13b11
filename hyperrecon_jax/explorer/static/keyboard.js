// @ts-check
"use strict";

// The keys of the whole page. Fields that are typed in keep all theirs, sliders and the pad those that move them.
const Keyboard = (() => {
  const HOLD = 300; // milliseconds from which Space was held to peek, and letting go changes back

  const ZOOM = 1.25; // one press
  const PAN = 0.1; // of the image at a zoom of 1
  const SETTING = "hyperrecon.single-keys"; // where the browser keeps whether keys of one character act

  const typing = (target) => target.matches("input[type=number], input[type=text], select, textarea");

  function keys(app) {
    const { state } = app;
    const step = (axis, sign) => (event) => app.stepLam(axis, sign * (event.shiftKey ? 0.1 : 0.01), event);
    const end = (value) => (event) => app.setLam([value, ...state.lam[state.active].slice(1)], event);
    const mode = (name) => () => app.setMode(name);
    const tool = (name) => () => app.change({ tool: name });
    return {
      ArrowLeft: step(0, -1),
      ArrowRight: step(0, 1),
      Home: end(0),
      End: end(1),
      ArrowUp: () => app.moveSlice(1),
      ArrowDown: () => app.moveSlice(-1),
      PageUp: () => app.moveSlice(10),
      PageDown: () => app.moveSlice(-10),
      a: () => app.change({ active: "A" }),
      b: () => app.change({ active: "B" }),
      c: () => app.copyToB(),
      x: () => app.swap(),
      1: mode("single"),
      2: mode("side"),
      3: mode("flicker"),
      4: mode("difference"),
      5: mode("error"),
      v: tool("pan"),
      w: tool("window"),
      p: () => app.change({ tool: state.tool === "profile" ? "pan" : "profile" }),
      g: () => app.autoWindow(),
      r: () => app.reset(),
      m: () => app.band.toggle(),
      i: () => app.change({ smooth: !state.smooth }),
      "+": () => app.zoomBy(ZOOM),
      "=": () => app.zoomBy(ZOOM), // the key of + without Shift
      "-": () => app.zoomBy(1 / ZOOM),
      h: () => app.movePan(-PAN, 0),
      j: () => app.movePan(0, PAN),
      k: () => app.movePan(0, -PAN),
      l: () => app.movePan(PAN, 0),
      y: () => app.copyLink(),
      Escape: () => app.closeProfile(),
      "?": () => app.help(),
    };
  }

  /** On the pad the vertical arrows move the second λ, which has no key of its own elsewhere. */
  function padKeys(app) {
    const step = (axis, sign) => (event) => app.stepLam(axis, sign * (event.shiftKey ? 0.1 : 0.01), event);
    return { ArrowUp: step(1, 1), ArrowDown: step(1, -1) };
  }

  /** A slider of λ beyond the first moves its own λ. */
  function sliderKeys(app, target) {
    const match = /^lambda-slider-(\d+)$/.exec(target.id);
    if (!match) return {};
    const axis = Number(match[1]) - 1;
    const { state } = app;
    const step = (sign) => (event) => app.stepLam(axis, sign * (event.shiftKey ? 0.1 : 0.01), event);
    const end = (value) => (event) =>
      app.setLam(state.lam[state.active].map((old, k) => (k === axis ? value : old)), event);
    return { ArrowLeft: step(-1), ArrowRight: step(1), Home: end(0), End: end(1) };
  }

  function special(app, target) {
    if (target.id === "lambda-pad") return padKeys(app);
    return sliderKeys(app, target);
  }

  // Other sliders move by their own arrows.
  const own = (target, key) =>
    target.matches("input[type=range]:not(.lambda), input[type=radio]") && /^(Arrow|Home|End|Page)/.test(key);

  // Space presses or opens these, or is written into them. It has no meaning on a slider or on the pad.
  const usesSpace = (target) => target.matches("button, select, textarea, a[href], summary, input:not([type=range]), dialog *");

  function readSetting() {
    try {
      return localStorage.getItem(SETTING) !== "off";
    } catch {
      return true; // a page from disk may have no storage
    }
  }

  /** The checkbox that switches off keys of one character: people who speak to their computer would press them unawares. */
  function switchKeys() {
    const box = document.getElementById("single-keys");
    box.checked = readSetting();
    box.onchange = () => {
      try {
        localStorage.setItem(SETTING, box.checked ? "on" : "off");
      } catch {
        // It holds until the page is closed.
      }
    };
    return box;
  }

  /** After a choice with a pointer the keys are the page's again; who works with the keyboard keeps the focus. */
  function releaseSelects() {
    for (const select of document.querySelectorAll("select")) {
      let isByPointer = false;
      select.addEventListener("pointerdown", () => (isByPointer = true));
      select.addEventListener("keydown", () => (isByPointer = false));
      select.addEventListener("change", () => isByPointer && select.blur());
    }
  }

  function space(app) {
    let pressed = 0;
    document.addEventListener("keydown", (event) => {
      if (event.key !== " " || app.state.mode !== "flicker" || usesSpace(event.target)) return;
      event.preventDefault(); // the page would scroll
      if (event.repeat) return;
      pressed = event.timeStamp;
      app.changeOver();
    });
    document.addEventListener("keyup", (event) => {
      if (event.key !== " " || !pressed) return;
      event.preventDefault();
      if (event.timeStamp - pressed > HOLD) app.changeOver();
      pressed = 0;
    });
  }

  function attach(app) {
    const everywhere = keys(app);
    const singleKeys = switchKeys();
    document.addEventListener("keydown", (event) => {
      const { target, key } = event;
      if (key === "Enter" && target.matches("input[type=number]")) target.blur(); // the keys are the page's again
      if (event.ctrlKey || event.metaKey || event.altKey || typing(target) || own(target, key)) return;
      if (document.querySelector("dialog[open]")) return;
      if (key.length === 1 && !singleKeys.checked) return;
      const name = key.length === 1 ? key.toLowerCase() : key;
      const action = special(app, target)[name] || everywhere[name];
      if (!action) return;
      event.preventDefault();
      action(event);
    });
    space(app);
    releaseSelects();
  }

  return { attach };
})();
