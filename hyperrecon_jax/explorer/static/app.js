// @ts-check
"use strict";

// The page: its state, the data it waits for, the connection and the address.
//
// What tests can hold on to:
//   body             data-ready "true" once the first reconstruction is drawn; data-connection "up" or "down";
//                    data-k the number of losses; data-mode; data-source "live" or "offline"
//   #view-main, #view-b, #view-input, #view-truth
//                    figures with a canvas; of what is drawn data-shows ("A", "B", "A-B", "error", "input", "truth"),
//                    data-lam ("0.250", "0.500,1.000"), data-exact ("true", "false"), data-volume, data-index,
//                    data-acquisition ("acceleration=4,sigma=0.02,mask=random_lines", or empty)
//   λ                #lambda-slider-1 (and on), #lambda-number-1 (and on), #lambda-pad, #sparkline, #landscape-metric,
//                    #slot-a, #slot-b, #copy-to-b, #swap
//   acquisition      #acquisition-acceleration, #acquisition-sigma, #acquisition-mask, #acquisition-note
//   figures          #readouts td[data-metric=psnr][data-of=A], of=B, of=input; #pixel
//   honesty          #verdict; #readouts .worse, .better, .above-noise; td[data-metric=noise_j]; #band, #band-legend[data-share]
//   anatomy          figures have data-letters ("R L A P": left, right, top, bottom) and data-bar ("5 cm")
//   display          #mode-single, -side, -flicker, -difference, -error; #tool-pan, -window, -profile; #window, #level,
//                    #auto-window, #reset, #smooth, #gain, #auto-gain, #scale-bar[data-range], #flicker-timer
//   image            #volume, #slice, #slice-value, #slice-label, #volume-note, #plane, #frame, #remove-volume, #file,
//                    #folder, #kind-image, #kind-kspace, #drop
//   finding          #best, #best-metric, #best-result, #diverse, #diverse-list button[data-lam]
//   profile          #profile, #profile-plot polyline[data-curve], #profile-close
//   export           #export-view, #export-content, button[data-format=png|npy|nii|dcm], #batch-lams, #batch-format,
//                    #batch-export, button[data-volume-format=nii|dcm], #export-scores
//   messages         #toasts li.error, #toasts li.info, #banner; #copy-link, #help
//   window.explorer  { state, latencies, cache, requests, views }; latencies are { kind, ms } from the input event to
//                    the drawn canvas: "cached" for what could be shown at once (exact or the nearest λ), "exact" for
//                    the image that was asked for. The same stand as "explorer:cached" and "explorer:exact" in the
//                    browser's performance timeline.
(() => {
  const MODES = ["single", "side", "flicker", "difference", "error"];
  const SLICES = 16; // slices whose input and truth are kept
  const LATENCIES = 5000;

  const get = (id) => document.getElementById(id);
  const clamp = (value) => Math.min(1, Math.max(0, value));

  const source = Source.open();
  const cache = new Store.Cache();
  const requests = new Store.Requests(source, cache, { onReconstructed, onProgress, onFailed: (error, job) => fail(job.place, error) });
  const sliceQueue = new Store.Newest(loadSlice);
  const slices = new Map(); // slice -> { input, truth, metrics, height, width }
  const latencies = [];

  const state = {
    volume: null,
    index: 0,
    acquisition: null, // { acceleration, sigma, mask }, if the run has a range of acquisitions
    lam: { A: [], B: [] },
    active: "A",
    mode: "single",
    tool: "pan",
    window: 1,
    level: 0.5,
    zoom: 1,
    pan: [0.5, 0.5],
    smooth: false,
    band: false, // what the measurement contradicts is coloured
    profile: null, // two points, in parts of the image
    metric: null, // of the landscape
    flicker: "A", // the slot that flicker shows
    gain: { difference: null, error: null }, // null: set from the first image
  };

  const app = {
    state,
    source,
    cache,
    requests,
    run: null,
    views: {},
    controls: null,
    finding: null,
    waiting: "",
    failure: () => (failure && failure.key === Store.sliceKey(place()) ? `No picture. ${failure.text}` : ""),
    visits: 0, // how often the user has gone to a volume, or followed a link or an answer
    cursor: null, // { view, at }: where the pointer is in an image
    band: null,
    autoWindow: () => change({ needsWindow: true }),
    change,
    changeOver: () => change({ flicker: state.flicker === "A" ? "B" : "A" }),
    closeProfile: () => change({ profile: null, tool: state.tool === "profile" ? "pan" : state.tool }),
    copyLink: () => address.copyLink(),
    copyToB: () => setLam(state.lam[state.active], null, "B"),
    help: () => get("help").showModal(),
    indices: () => source.indices(volume(state.volume)),
    moveSlice,
    movePan: (across, down) => change({ pan: [across, down].map((step, axis) => clamp(state.pan[axis] + step / state.zoom)) }),
    place,
    report: (error) => report(error),
    reportFor,
    reset: () => change({ zoom: 1, pan: [0.5, 0.5], needsWindow: true }),
    sayUnknown,
    schedule,
    setAcquisition,
    setLam,
    setMode,
    slice: () => slices.get(Store.sliceKey(place())), // its input and truth, once they are here
    showPlace,
    showSlice: (index) => goTo(state.volume, index),
    showVolume,
    size: () => volume(state.volume), // { width, height, aspect }
    stepLam: (axis, step, event) => setLam(source.step(state.lam[state.active], axis, step), event),
    swap,
    volume,
    zoomBy: (factor) => change({ zoom: Gestures.limitZoom(state.zoom * factor) }),
  };

  const pictures = Pictures(app);
  const screen = PageScreen(app, pictures);
  const { report } = Connection(app, { start, update });
  const address = Address(app, MODES);

  let marks = []; // { kind, since, slot }: input events whose image is not drawn yet
  let sliceAbort = new AbortController();
  let failure = null; // { key, text }: why there is no picture of a slice
  let drawing = false;

  // The state and its changes

  function volume(id) {
    return app.run.volumes.find((entry) => entry.id === id);
  }

  function place() {
    return { volume: state.volume, index: state.index, ...Acquisition.part(app) };
  }

  function change(changes) {
    Object.assign(state, changes);
    schedule();
    address.save();
  }

  function setLam(lam, event, slot = state.active) {
    state.lam[slot] = source.snap(lam);
    const since = event ? event.timeStamp : performance.now();
    marks.push({ kind: "cached", since, slot });
    ask(slot, since);
    change({});
  }

  function ask(slot, since = null) {
    if (cache.has(place(), state.lam[slot])) requests.settle(slot);
    else requests.want(slot, place(), state.lam[slot], since);
  }

  function swap() {
    state.lam = { A: state.lam.B, B: state.lam.A };
    ask("A");
    ask("B");
    change({});
  }

  function setMode(mode) {
    change({ mode, flicker: "A" });
  }

  function moveSlice(by) {
    const indices = app.indices();
    const position = indices.indexOf(state.index) + by;
    goTo(state.volume, indices[Math.min(indices.length - 1, Math.max(0, position))]);
  }

  function showVolume({ id, start }, index = start) {
    state.needsWindow = true;
    const indices = source.indices(volume(id));
    goTo(id, indices.includes(index) ? index : indices[Math.floor(indices.length / 2)]);
  }

  /** Goes to a slice as it was measured when something was asked about it; false if its volume is gone. */
  function showPlace({ volume: id, index, acquisition }) {
    app.visits += 1;
    if (!volume(id)) {
      Messages.toast("The volume of this answer is not open any more.", "error");
      return false;
    }
    if (acquisition) state.acquisition = Acquisition.parse(acquisition, app.run.acquisitions);
    change({ volume: id, index });
    load();
    return true;
  }

  function setAcquisition(acquisition) {
    change({ acquisition });
    load();
  }

  function goTo(id, index) {
    const isNew = state.volume !== id || state.index !== index;
    change({ volume: id, index });
    if (isNew) load();
  }

  // Data

  function load() {
    failure = null;
    if (!slices.has(Store.sliceKey(place()))) {
      sliceAbort.abort();
      sliceQueue.ask(place());
    }
    const [first, second] = state.active === "A" ? ["A", "B"] : ["B", "A"];
    ask(first);
    ask(second);
    const set = Store.coarse(app.run.lams.length, state.lam[first]);
    requests.fill(place(), set.map((lam) => source.snap(lam)));
  }

  async function loadSlice(target) {
    sliceAbort = new AbortController();
    try {
      const slice = await source.slice(target, sliceAbort.signal, onProgress);
      slices.set(Store.sliceKey(target), slice);
      if (slices.size > SLICES) slices.delete(slices.keys().next().value);
      schedule();
    } catch (error) {
      if (Source.isAbort(error)) return;
      fail(target, error);
      if (!(error instanceof Source.ConnectionLost)) await checkVolume();
    }
  }

  /** What is said instead of a picture, while one takes long. */
  function onProgress(progress) {
    app.waiting = progress ? progress.words : "";
    schedule();
  }

  /** Tells why there is no picture of a slice, and stops to wait for it. */
  function fail(target, error) {
    if (!(error instanceof Source.ConnectionLost)) failure = { key: Store.sliceKey(target), text: error.message };
    reportFor(target, error);
    schedule();
  }

  /** Tells of an error about a slice, if that is still shown: another plane takes the volume of the earlier one away. */
  function reportFor(target, error) {
    if (error instanceof Source.ConnectionLost || Store.sliceKey(target) === Store.sliceKey(place())) report(error);
  }

  /** A server makes room for new files by letting old ones go: then the page goes back to the first volume. */
  async function checkVolume() {
    try {
      app.run.volumes = (await source.run()).volumes;
    } catch (error) {
      report(error);
      return;
    }
    if (!volume(state.volume)) fallBack();
  }

  function onReconstructed(entry, job) {
    const isWanted =
      job.since !== null &&
      job.slot &&
      Store.lamKey(state.lam[job.slot]) === Store.lamKey(job.lam) &&
      Store.sliceKey(place()) === Store.sliceKey(job.place);
    if (isWanted) marks.push({ kind: "exact", since: job.since, slot: job.slot });
    schedule();
  }

  /** The server answers again. */
  function update(run) {
    app.run.volumes = run.volumes;
    requests.resume();
    if (volume(state.volume)) load();
    else fallBack();
    schedule();
  }

  function fallBack() {
    const [first] = app.run.volumes;
    sayUnknown(first);
    showVolume(first);
  }

  /** `shown` is the volume that takes the place of the unknown one. */
  function sayUnknown(shown) {
    Messages.toast(`That volume is not known here (any more); this is ${shown.name} instead.`, "error");
  }

  // Drawing

  function schedule() {
    if (drawing || !app.run || !state.volume) return;
    drawing = true;
    requestAnimationFrame(draw);
  }

  /** A slot's image: the exact one, else that of the nearest λ, else null; never another slice's. */
  function image(slot) {
    const lam = state.lam[slot];
    const exact = cache.get(place(), lam);
    const entry = exact || cache.nearest(place(), lam);
    return entry ? { entry, exact: Boolean(exact), plane: entry.plane } : null;
  }

  function draw() {
    drawing = false;
    const images = { A: image("A"), B: image("B") };
    if (state.needsWindow) pictures.setWindow(images);
    screen.draw(images);
    measure(images);
  }

  function measure(images) {
    const now = performance.now();
    for (const { kind, since, slot } of marks) {
      if (!images[slot]) continue; // nothing of this slice could be shown yet
      latencies.push({ kind, ms: now - since });
      performance.measure(`explorer:${kind}`, { start: since, end: now });
    }
    marks = [];
    if (latencies.length > LATENCIES) latencies.splice(0, latencies.length - LATENCIES);
    if (images.A) document.body.dataset.ready = "true";
  }

  // Start

  function addViews() {
    for (const name of ["main", "b", "input", "truth"]) {
      const view = new View(get(`view-${name}`), schedule);
      app.views[name] = view;
      Gestures.attach(view, { state, change, hover, moveSlice, reset: app.reset });
    }
  }

  function hover(view, at) {
    app.cursor = at ? { view, at } : null;
    schedule();
  }

  function start(run) {
    app.run = run;
    Readouts.load(run.metric_facts);
    const axes = run.lams.length;
    state.lam = { A: source.snap(Array(axes).fill(0.5)), B: source.snap(Array(axes).fill(1)) };
    state.acquisition = run.acquisitions ? run.acquisitions.start : null;
    get("run-name").textContent = run.name;
    get("run-task").textContent = run.task;
    document.title = `${run.name} – hyperrecon explorer`;
    Object.assign(document.body.dataset, { k: axes + 1, source: source.live ? "live" : "offline" });
    document.body.classList.toggle("offline", !source.live);
    app.controls = new Lambda.Controls(run, (lam, event) => setLam(lam, event));
    app.finding = new Finding(app);
    app.band = Band(app);
    app.band.attach();
    Acquisition.attach(app);
    addViews();
    Toolbar.attach(app);
    Volumes.attach(app);
    Exporting.attach(app);
    Keyboard.attach(app);
    window.addEventListener("hashchange", address.follow);
    address.restore();
  }

  async function open() {
    try {
      start(await source.run());
    } catch (error) {
      report(error);
    }
  }

  window.explorer = { state, latencies, cache, requests, views: app.views };
  open();
})();
