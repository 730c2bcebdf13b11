"use strict";

// The choice of the image: volume, slice, and files that are opened or dropped.
const Volumes = (() => {
  const get = (id) => document.getElementById(id);

  const kind = () => document.querySelector("input[name=kind]:checked").value;

  async function upload(app, file, as) {
    const busy = Messages.toast(`Reading ${file.name} …`, "busy");
    try {
      const volume = await app.source.upload(file, as, get("plane").value);
      app.run.volumes = [...app.run.volumes.filter(({ id }) => id !== volume.id), volume];
      app.showVolume(volume);
      Messages.toast(`${volume.name} is open.${volume.note ? ` ${volume.note}` : ""}`);
    } catch (error) {
      app.report(error);
    } finally {
      busy.remove();
    }
  }

  function uploadAll(app, files, as) {
    if (!files.length) return;
    if (files.length > 1) Messages.toast("One file at a time: the first one is opened.");
    upload(app, files[0], as);
  }

  function dropping(app) {
    const overlay = get("drop");
    const hasFiles = (event) => event.dataTransfer && event.dataTransfer.types.includes("Files");
    document.addEventListener("dragover", (event) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      overlay.hidden = false;
      const over = event.target.closest && event.target.closest("[data-kind]");
      const chosen = over ? over.dataset.kind : kind();
      for (const zone of overlay.children) zone.classList.toggle("over", zone.dataset.kind === chosen);
    });
    document.addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) overlay.hidden = true;
    });
    document.addEventListener("drop", (event) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      overlay.hidden = true;
      const over = event.target.closest && event.target.closest("[data-kind]");
      uploadAll(app, event.dataTransfer.files, over ? over.dataset.kind : kind());
    });
  }

  function attach(app) {
    get("volume").onchange = (event) => app.showVolume(app.volume(event.target.value));
    get("slice").oninput = (event) => app.showSlice(app.indices()[event.target.value]);
    get("slice").onpointerup = (event) => event.target.blur(); // ← and → move λ again
    if (!app.run.writable || !app.source.live) return;
    get("file").onchange = (event) => {
      uploadAll(app, [...event.target.files], kind());
      event.target.value = ""; // the same file again is a change too
    };
    dropping(app);
  }

  function list(app) {
    const options = app.run.volumes.map(({ id, name }) => new Option(name, id));
    get("volume").replaceChildren(...options);
  }

  function note(id, text) {
    get(id).textContent = text;
    get(id).hidden = !text;
  }

  function show(app) {
    const { state } = app;
    const shown = [...get("volume").options].map((option) => option.value).join();
    if (shown !== app.run.volumes.map(({ id }) => id).join()) list(app);
    get("volume").value = state.volume;
    const indices = app.indices();
    const position = indices.indexOf(state.index);
    get("slice").max = indices.length - 1;
    get("slice").value = position;
    get("slice").disabled = indices.length < 2;
    // Counted from 0, as in links, exported files and the tables of an evaluation.
    const isWhole = indices.length === app.volume(state.volume).slices;
    const range = isWhole ? ` of 0–${indices.length - 1}` : ` (${position + 1} of ${indices.length})`;
    get("slice-value").textContent = state.index + range;
    note("slice-label", app.source.label(app.place()));
    note("volume-note", app.volume(state.volume).note || "");
  }

  return { attach, show };
})();
