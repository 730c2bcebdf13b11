// @ts-check
"use strict";

// The choice of the image: volume, slice, and files that are opened or dropped.
const Volumes = (() => {
  const get = (id) => document.getElementById(id);

  const kind = () => document.querySelector("input[name=kind]:checked").value;

  let wanted = null; // how the user wants to see some files, { app, files, plane, frame }, until they are shown so
  const removing = new Set(); // ids
  const cuts = new Store.Newest(cutAgain);

  const mebibytes = (bytes) => `${Math.ceil(bytes / 2 ** 20)} MiB`;

  /** Whether files are small enough to be sent; if they are not, says so. */
  function fits(app, files) {
    const limit = app.run.max_upload_bytes;
    const size = files.reduce((sum, file) => sum + file.size, 0);
    if (!limit || size <= limit) return true;
    const what = files.length > 1 ? `The ${files.length} files are` : `${files[0].name} is`;
    app.report(new Error(`${what} ${mebibytes(size)}, the page takes at most ${mebibytes(limit)}: save a part of the slices.`));
    return false;
  }

  function add(app, opened) {
    const ids = opened.map(({ id }) => id);
    app.run.volumes = [...app.run.volumes.filter(({ id }) => !ids.includes(id)), ...opened];
  }

  /** Puts volumes in the place of those of the same files. */
  function replaceSame(app, opened) {
    app.run.volumes = app.run.volumes.filter(({ files }) => files !== opened[0].files);
    add(app, opened);
  }

  /**
   * Several files are images: each series of them is a volume, and the largest is shown. Whoever has gone to another volume
   * meanwhile stays there.
   */
  async function upload(app, files, as) {
    if (!files.length || !fits(app, files)) return;
    const { visits } = app;
    const busy = Messages.toast(`Reading ${files.length > 1 ? `${files.length} files` : files[0].name} …`, "busy");
    try {
      const opened = await app.source.upload(files, as);
      add(app, opened);
      const isExpected = app.visits === visits;
      if (isExpected) app.showVolume(opened[0]);
      else app.schedule();
      const names = opened.map(({ name }) => name).join(", ");
      // What was done to it stands under the choice of the volume.
      Messages.toast(`Opened ${names}.${isExpected ? "" : " Choose it under Volume."}`);
    } catch (error) {
      app.report(error);
    } finally {
      busy.remove();
    }
  }

  const isWanted = (files) => wanted !== null && wanted.files === files;

  /** The shown volume in another plane, or another volume of its file; of choices that come quickly the last one. */
  function cut(app, changes) {
    const { files, plane, frame } = app.volume(app.state.volume);
    wanted = { app, files, plane, frame, ...(isWanted(files) ? wanted : {}), ...changes };
    cuts.ask(wanted);
  }

  async function cutAgain(wish) {
    const { app, files, plane, frame } = wish;
    const busy = Messages.toast("Cutting the volume …", "busy");
    try {
      const current = app.run.volumes.find((volume) => volume.files === files);
      if (!current) return; // the server has let it go
      const opened = await app.source.cut(current.id, plane, frame);
      const shown = app.volume(app.state.volume);
      replaceSame(app, opened);
      // Whoever has gone to another file meanwhile stays there.
      if (shown.files === files) showAgain(app, shown, opened);
    } catch (error) {
      app.report(error);
    } finally {
      busy.remove();
      if (wanted === wish) wanted = null;
      app.schedule();
    }
  }

  /** Shows what was shown: the series of the same name and, in the same plane, the same slice. */
  function showAgain(app, shown, opened) {
    const next = opened.find(({ name }) => name === shown.name) || opened[0];
    app.showVolume(next, next.plane === shown.plane ? app.state.index : next.start);
  }

  /**
   * Opens the volume of a link in this tab: one of another tab, or of files that are open in another plane or frame. False,
   * if the server is away.
   */
  async function fetchLinked(app, id) {
    const busy = Messages.toast("Opening the volume of the link …", "busy");
    try {
      replaceSame(app, await app.source.restore(id));
    } catch (error) {
      if (!(error instanceof Source.ConnectionLost)) return true; // the page says that it is not known
      app.report(error);
      return false;
    } finally {
      busy.remove();
    }
    return true;
  }

  async function remove(app) {
    const { id } = app.volume(app.state.volume);
    if (removing.has(id)) return; // a double click
    removing.add(id);
    try {
      await app.source.remove(id);
      app.run.volumes = app.run.volumes.filter((volume) => volume.id !== id);
      if (app.state.volume === id) app.showVolume(app.run.volumes[0]);
    } catch (error) {
      app.report(error);
    } finally {
      removing.delete(id);
      app.schedule();
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
      const chosenKind = over ? over.dataset.kind : kind();
      for (const zone of overlay.children) zone.classList.toggle("over", zone.dataset.kind === chosenKind);
    });
    document.addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) overlay.hidden = true;
    });
    document.addEventListener("drop", (event) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      overlay.hidden = true;
      const over = event.target.closest && event.target.closest("[data-kind]");
      const chosenKind = over ? over.dataset.kind : kind();
      filesOf(event.dataTransfer).then((files) => upload(app, files, chosenKind)).catch(app.report);
    });
  }

  function attach(app) {
    get("volume").onchange = (event) => {
      app.visits += 1;
      app.showVolume(app.volume(event.target.value));
    };
    get("slice").oninput = (event) => app.showSlice(app.indices()[event.target.value]);
    get("slice").onpointerup = (event) => event.target.blur(); // ← and → move λ again
    get("file").onchange = (event) => {
      upload(app, [...event.target.files], kind());
      event.target.value = ""; // the same file again is a change too
    };
    get("folder").onchange = (event) => {
      const files = [...event.target.files];
      for (const file of files) file.path = file.webkitRelativePath;
      upload(app, files, kind());
      event.target.value = "";
    };
    get("plane").onchange = ({ target }) => cut(app, { plane: target.value });
    get("frame").onchange = ({ target }) => {
      const { frames } = app.volume(app.state.volume);
      const frame = target.valueAsNumber;
      if (Number.isInteger(frame) && frame >= 0 && frame < frames) cut(app, { frame });
      else app.schedule();
    };
    get("remove-volume").onclick = () => remove(app);
    dropping(app);
  }

  function list(app) {
    const options = app.run.volumes.map(({ id, name }) => new Option(name, id));
    get("volume").replaceChildren(...options);
  }

  /** What can be chosen of the shown volume: its plane, the volume of its file, and whether it stays. */
  function choices(app) {
    const { id, files, planes = [], shown_plane: shownPlane, frames, ...shown } = app.volume(app.state.volume);
    const { plane, frame } = isWanted(files) ? wanted : shown;
    get("plane-row").hidden = planes.length < 2;
    get("plane").value = plane;
    const asAcquired = get("plane").querySelector("[value=acquired]");
    asAcquired.textContent = plane === "acquired" && shownPlane ? `as acquired (${shownPlane})` : "as acquired";
    get("frame-row").hidden = !(frames > 1);
    get("frame").max = frames - 1;
    if (document.activeElement !== get("frame")) get("frame").value = frame;
    get("frame-count").textContent = `of 0–${frames - 1}`;
    get("remove-volume").hidden = id === "test";
    get("remove-volume").disabled = removing.has(id) || isWanted(files);
  }

  /** Which subject a test image shows. */
  function subject(app) {
    const { subjects } = app.volume(app.state.volume);
    if (!subjects) return "";
    if (!subjects.length) return "Subject unknown: the file of the test images does not say it";
    return `Subject ${subjects[app.state.index]} of the ${Math.max(...subjects)} in the test images`;
  }

  function note(id, text) {
    get(id).textContent = text;
    get(id).hidden = !text;
  }

  function show(app) {
    const { state } = app;
    const listedIds = [...get("volume").options].map((option) => option.value).join();
    if (listedIds !== app.run.volumes.map(({ id }) => id).join()) list(app);
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
    note("slice-label", [subject(app), app.source.label(app.place())].filter(Boolean).join("; "));
    choices(app);
    note("volume-note", app.volume(state.volume).note || "");
  }

  return { attach, fetchLinked, show };
})();
