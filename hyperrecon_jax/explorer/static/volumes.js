// @ts-check
"use strict";

// The choice of the image: volume, slice, and files that are opened or dropped.
const Volumes = (() => {
  const get = (id) => document.getElementById(id);

  const kind = () => document.querySelector("input[name=kind]:checked").value;

  /** Several files are images: each series of them is a volume, and the largest is shown. */
  async function upload(app, files, as) {
    if (!files.length) return;
    const busy = Messages.toast(`Reading ${files.length > 1 ? `${files.length} files` : files[0].name} …`, "busy");
    try {
      const opened = await app.source.upload(files, as, get("plane").value);
      const ids = opened.map(({ id }) => id);
      app.run.volumes = [...app.run.volumes.filter(({ id }) => !ids.includes(id)), ...opened];
      const [volume] = opened;
      app.showVolume(volume);
      const names = opened.map(({ name }) => name).join(", ");
      // What was done to it stands under the choice of the volume.
      Messages.toast(`${names} ${opened.length > 1 ? "are" : "is"} open.`);
    } catch (error) {
      app.report(error);
    } finally {
      busy.remove();
    }
  }

  /** The files that were dropped, and those in folders. The entries must be taken before anything is awaited. */
  async function filesOf(transfer) {
    const entries = [...transfer.items].map((item) => item.webkitGetAsEntry && item.webkitGetAsEntry());
    const loose = [...transfer.files];
    if (!entries.some((entry) => entry && entry.isDirectory)) return loose;
    const files = [];
    const visit = async (entry) => {
      if (entry.isFile) {
        const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
        files.push(Object.assign(file, { path: entry.fullPath.slice(1) }));
      }
      if (!entry.isDirectory) return;
      const reader = entry.createReader();
      const next = () => new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      for (let batch = await next(); batch.length; batch = await next()) {
        for (const child of batch) await visit(child);
      }
    };
    for (const entry of entries.filter(Boolean)) await visit(entry);
    return files;
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
      const chosen = over ? over.dataset.kind : kind();
      filesOf(event.dataTransfer).then((files) => upload(app, files, chosen)).catch(app.report);
    });
  }

  function attach(app) {
    get("volume").onchange = (event) => app.showVolume(app.volume(event.target.value));
    get("slice").oninput = (event) => app.showSlice(app.indices()[event.target.value]);
    get("slice").onpointerup = (event) => event.target.blur(); // ← and → move λ again
    get("file").onchange = (event) => {
      upload(app, [...event.target.files], kind());
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
