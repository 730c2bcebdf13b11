// @ts-check
"use strict";

// Files to take away: slices, a whole volume, and the picture as it is on the screen.
const Exporting = (() => {
  const get = (id) => document.getElementById(id);

  function save(blob, name) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  async function saveSlices(app, lams, fields, button) {
    button.disabled = true;
    try {
      const { window, level } = app.state; // the gray scale of a PNG
      const { blob, name } = await app.source.export(app.place(), lams, { window, level, ...fields });
      save(blob, name);
    } catch (error) {
      app.report(error);
    } finally {
      button.disabled = false;
    }
  }

  function batch(app, event) {
    event.preventDefault();
    try {
      const lams = Lambda.parseList(get("batch-lams").value, app.run.lams.length);
      saveSlices(app, lams, { format: get("batch-format").value }, get("batch-export"));
    } catch (error) {
      app.report(error);
    }
  }

  /** All slices of the volume in one file, or the table of their scores. */
  async function wholeVolume(app, fields, button) {
    const { slices } = app.volume(app.state.volume);
    const title = `${button.textContent} of ${slices} slices`;
    const abort = new AbortController();
    const busy = Messages.toast(`${title} …`, "busy", () => abort.abort());
    button.disabled = true;
    try {
      const { blob, name } = await app.source.exportAll(app.place(), app.state.lam.A, fields, abort.signal, (progress) => {
        if (progress && progress.share !== null) {
          busy.querySelector("span").textContent = `${title}: ${Math.round(100 * progress.share)} %`;
        }
      });
      save(blob, name);
    } catch (error) {
      if (Source.isAbort(error)) Messages.toast(`${title}: cancelled, no file was written.`);
      else app.report(error);
    } finally {
      busy.remove();
      button.disabled = false;
    }
  }

  function attach(app) {
    get("export-view").onclick = () => AsSeen.draw(app).toBlob((blob) => save(blob, AsSeen.fileName(app)));
    const content = () => get("export-content").value;
    for (const button of document.querySelectorAll("[data-format]")) {
      const { format } = button.dataset;
      button.onclick = () => saveSlices(app, [app.state.lam.A], { format, content: content() }, button);
    }
    for (const button of document.querySelectorAll("[data-volume-format]")) {
      const format = button.dataset.volumeFormat;
      button.onclick = () => wholeVolume(app, { format, content: content() }, button);
    }
    get("export-scores").onclick = ({ currentTarget }) => wholeVolume(app, {}, currentTarget);
    get("batch").onsubmit = (event) => batch(app, event);
    get("batch-lams").value = app.run.lams.length === 1 ? "0, 0.25, 0.5, 0.75, 1" : examples(app.run.lams.length);
  }

  const examples = (axes) => [0, 0.5, 1].map((value) => Array(axes).fill(value).join(" ")).join("; ");

  return { attach };
})();
