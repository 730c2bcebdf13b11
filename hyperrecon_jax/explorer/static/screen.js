// @ts-check
"use strict";

// Brings the state to the screen: views, read-outs, plot, and how the buttons look.
const PageScreen = (app, pictures) => {
  const { state } = app;
  const memo = Memo();
  const get = (id) => document.getElementById(id);
  const all = (selector) => [...document.querySelectorAll(selector)];

  function draw(images) {
    drawViews(images);
    drawPanels(images);
  }

  function drawViews(images) {
    const { zoom, pan, smooth, profile } = state;
    const shared = { zoom, pan, smooth, profile, cursor: app.cursor };
    const loaded = app.slice();
    const main = pictures.mainContent(images);
    get("view-b").hidden = state.mode !== "side";
    get("view-truth").hidden = !app.volume(state.volume).truth;
    const failure = app.failure();
    const message = main.message || (main.picture ? "" : failure || app.waiting);
    show("main", { ...main, message }, shared);
    if (state.mode === "side") show("b", { ...pictures.slotContent("B", images.B), message: images.B ? "" : failure }, shared);
    for (const name of ["input", "truth"]) {
      const plane = loaded && loaded[name];
      show(name, { shows: name, text: name, picture: plane && pictures.gray(plane), message: loaded ? "" : failure }, shared);
    }
    get("view-message").hidden = !message;
    get("view-message").textContent = message;
    scaleBar(main.picture);
    app.band.legend(main.picture && main.picture.band);
  }

  /** @param {any} content what `Pictures` makes */
  function show(name, content, shared) {
    const { picture, shows, text, message, image } = content;
    const view = app.views[name];
    const { figure } = view;
    // While the next slice is on its way the last one stays, to scroll without flicker; after a moment it goes dim.
    const isSame = figure.dataset.volume === state.volume && figure.dataset.shows === shows;
    view.draw(picture || (isSame && !message ? view.picture : null), shared);
    figure.classList.toggle("loading", !picture && !message);
    const lam = image ? Store.lamKey(image.entry.lam) : "";
    const exact = String(image ? image.exact : Boolean(picture));
    Object.assign(figure.dataset, { shows, lam, exact, ...(picture ? { acquisition: "", ...app.place() } : {}) });
    const label = figure.querySelector(".label");
    if (label.textContent !== text) label.textContent = text;
    view.canvas.setAttribute("aria-label", text + (view.picture ? Anatomy.describe(view.picture) : ""));
    const approximate = figure.querySelector(".approximate");
    if (!approximate) return;
    approximate.hidden = !image || image.exact;
    approximate.textContent = image ? `approximate λ = ${Lambda.format(image.entry.lam)}` : "";
  }

  function scaleBar(picture) {
    const isMap = Boolean(picture) && picture.colours !== "gray";
    get("scale-bar").hidden = !isMap;
    if (!isMap) return;
    const { low, high, colours } = picture;
    const digits = high < 0.02 ? 4 : 3;
    const sign = low < 0 ? "±" : "0 to ";
    get("scale-bar").dataset.range = sign + high.toFixed(digits);
    get("scale-bar").querySelector(".bar").style.background = Colors.gradient(colours);
    const numbers = get("scale-bar").querySelectorAll(".numbers span");
    const texts = low < 0 ? [low.toFixed(digits), "0", `+${high.toFixed(digits)}`] : ["0", "", high.toFixed(digits)];
    texts.forEach((text, i) => (numbers[i].textContent = text));
  }

  function drawPanels(images) {
    app.controls.show(state);
    Acquisition.show(app);
    Volumes.show(app);
    app.finding.draw(state.level - state.window / 2, state.level + state.window / 2);
    drawToolbar();
    drawReadouts(images);
    drawProfile(images);
    drawPixel(images);
  }

  function pressed(selector, field, value) {
    for (const button of all(selector)) button.setAttribute("aria-pressed", String(button.dataset[field] === value));
  }

  // A field that is being typed in is left alone.
  function fieldValue(id, value) {
    if (document.activeElement !== get(id)) get(id).value = value;
  }

  function drawToolbar() {
    const { mode, tool, active, lam } = state;
    document.body.dataset.mode = mode;
    document.body.dataset.tool = tool;
    pressed("[data-mode]:not(body)", "mode", mode);
    pressed("[data-tool]:not(body)", "tool", tool);
    pressed("[data-slot]", "slot", active);
    get("slot-a").textContent = `A  ${Lambda.format(lam.A)}`;
    get("slot-b").textContent = `B  ${Lambda.format(lam.B)}`;
    fieldValue("landscape-metric", state.metric);
    get("copy-to-b").disabled = active === "B";
    fieldValue("window", Number(state.window.toFixed(3)));
    fieldValue("level", Number(state.level.toFixed(3)));
    get("smooth").checked = state.smooth;
    get("flicker-options").hidden = mode !== "flicker";
    get("gain-options").hidden = !(mode in state.gain);
    if (!(mode in state.gain)) return;
    const gain = state.gain[mode] || 10;
    fieldValue("gain", Math.log10(gain));
    get("gain-value").textContent = `× ${gain.toFixed(gain < 10 ? 1 : 0)}`;
  }

  function drawReadouts({ A, B }) {
    const loaded = app.slice();
    const truth = app.volume(state.volume).truth;
    const { differences = [] } = app.volume(state.volume);
    memo("readouts", [A && A.entry, B && B.entry, loaded, truth], () => {
      const columns = { A: A && A.entry.metrics, B: B && B.entry.metrics, input: loaded && loaded.metrics };
      const metrics = truth ? app.run.metrics : [];
      Readouts.table(get("readouts").tBodies[0], metrics, columns, loaded && loaded.noise);
      Readouts.verdict(get("verdict"), metrics, columns, differences);
    });
    for (const [slot, image] of Object.entries({ A, B })) {
      const isApproximate = Boolean(image) && !image.exact;
      get("readouts").classList.toggle(`approximate-${slot}`, isApproximate);
    }
    get("no-truth").hidden = truth;
    get("best").disabled = !truth;
    get("best-metric").disabled = !truth;
  }

  function curves({ A, B }) {
    const loaded = app.slice();
    const size = app.size();
    const usesB = ["side", "flicker", "difference"].includes(state.mode) || state.active === "B";
    const named = [
      ["truth", loaded && loaded.truth],
      ["input", loaded && loaded.input],
      ["B", usesB && B && B.plane],
      ["A", A && A.plane],
    ];
    return named
      .filter(([, plane]) => plane)
      .map(([name, plane]) => ({ name, className: `curve-${name}`, image: { ...size, plane } }));
  }

  function drawProfile(images) {
    const { profile, tool } = state;
    get("profile").hidden = !profile && tool !== "profile";
    get("profile-hint").hidden = Boolean(profile);
    get("profile-plot").style.display = profile ? "" : "none";
    if (get("profile").hidden) return;
    const profileCurves = curves(images);
    const size = [get("profile-plot").clientWidth, get("profile-plot").clientHeight];
    const planes = ["truth", "input", "B", "A"].map((name) => (profileCurves.find((curve) => curve.name === name) || {}).image);
    memo("profile", [profile, ...size, ...planes.map((image) => image && image.plane)], () => {
      Profile.plot(get("profile-plot"), profile, profileCurves);
      Profile.legend(get("profile-legend"), [...profileCurves].reverse());
    });
  }

  function drawPixel(images) {
    const { width, height } = app.size();
    const { cursor } = app;
    const [x, y] = cursor ? [Math.floor(cursor.at[0] * width), Math.floor(cursor.at[1] * height)] : [-1, -1];
    const isInside = x >= 0 && y >= 0 && x < width && y < height;
    const values = isInside
      ? curves(images).reverse().map(({ name, image: { plane } }) => `${name} ${plane[y * width + x].toFixed(3)}`)
      : [];
    get("pixel").textContent = isInside ? [`column ${x}, row ${y}`, ...values].join("   ") : "\u00a0";
  }

  return { draw };
};
