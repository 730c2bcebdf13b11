// @ts-check
"use strict";

// Files to take away: reconstructions from the server, and the picture as it is on the screen.
const Exporting = (() => {
  const get = (id) => document.getElementById(id);

  function save(blob, name) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  async function fromServer(app, lams, format, button) {
    button.disabled = true;
    try {
      const { window, level } = app.state; // the gray scale of a PNG
      const { blob, name } = await app.source.export(app.place(), lams, format, { window, level });
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
      fromServer(app, lams, get("batch-format").value, get("batch-export"));
    } catch (error) {
      app.report(error);
    }
  }

  /** The main view, with B beside it where it is shown, each under its caption, and under both what they are of. */
  function asSeen(app) {
    const figures = [...document.querySelectorAll("#views figure:not([hidden])")];
    const canvases = figures.map((figure) => figure.querySelector("canvas"));
    const line = 22 * (window.devicePixelRatio || 1);
    const page = document.createElement("canvas");
    page.width = canvases.reduce((sum, canvas) => sum + canvas.width, 0);
    page.height = Math.max(...canvases.map((canvas) => canvas.height)) + 2 * line;
    const context = page.getContext("2d");
    context.fillStyle = "#000";
    context.fillRect(0, 0, page.width, page.height);
    context.fillStyle = "#fff";
    context.font = `${line * 0.6}px sans-serif`;
    let left = 0;
    canvases.forEach((canvas, i) => {
      context.drawImage(canvas, left, line);
      const scale = get("scale-bar").hidden ? "" : `  (${get("scale-bar").dataset.range})`;
      context.fillText(figures[i].querySelector(".label").textContent + scale, left + line / 4, line * 0.7);
      left += canvas.width;
    });
    const { name } = app.volume(app.state.volume);
    const scores = document.querySelector("#readouts td[data-metric=psnr][data-of=A]");
    const { label, unit } = Readouts.describe("psnr");
    const psnr = scores && scores.textContent !== "–" ? `, ${label} of A ${scores.textContent} ${unit}` : "";
    context.fillText(`${app.run.name}: ${name}, slice ${app.state.index}${psnr}`, line / 4, page.height - line * 0.3);
    page.toBlob((blob) => save(blob, `${name.replace(/\W+/g, "_")}_${app.state.index}_${app.state.mode}.png`));
  }

  function attach(app) {
    get("export-view").onclick = () => asSeen(app);
    for (const button of document.querySelectorAll("[data-format]")) {
      button.onclick = () => fromServer(app, [app.state.lam.A], button.dataset.format, button);
    }
    get("batch").onsubmit = (event) => batch(app, event);
    get("batch-lams").value = app.run.lams.length === 1 ? "0, 0.25, 0.5, 0.75, 1" : examples(app.run.lams.length);
  }

  const examples = (axes) => [0, 0.5, 1].map((value) => Array(axes).fill(value).join(" ")).join("; ");

  return { attach };
})();
