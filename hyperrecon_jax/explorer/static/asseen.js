// @ts-check
"use strict";

// The picture as it is on the screen, as an image: views under their captions, their scales, and what they are of.
const AsSeen = (() => {
  const FONT = "sans-serif";
  const get = (id) => document.getElementById(id);

  /** What the picture is of, a line each. */
  function lines(app) {
    const { state, run } = app;
    const volume = app.volume(state.volume);
    const lams = ["A", "B"].map((slot) => `${slot}: λ = ${Lambda.format(state.lam[slot])}`).join(", ");
    const scores = document.querySelector("#readouts td[data-metric=psnr][data-of=A]");
    const { label, unit } = Readouts.describe("psnr");
    const psnr = scores && !scores.textContent.startsWith("–") ? `; ${label} of A ${scores.firstChild.textContent} ${unit}` : "";
    const measured = state.acquisition && volume.choices.length ? Acquisition.inWords(Acquisition.text(state.acquisition)) : run.task;
    return [
      `${volume.name}, slice ${state.index}${volume.shown_plane ? ` (${volume.shown_plane})` : ""}${psnr}`,
      `${run.name} (${run.steps} steps); ${lams}; ${measured}`,
      `hyperrecon_jax ${run.version || ""}, ${new Date().toISOString().slice(0, 16).replace("T", " ")} UTC. ${run.notice || ""}`,
    ];
  }

  /** A bar of the colours of a picture, and one of its band, with the values at their ends; as wide as `room` allows. */
  function scales(context, { low, high, colours, band }, left, top, room, size) {
    const width = Math.min(9 * size, room / 2 - size);
    scale(context, [low, high], colours, { left: left + size / 2, top, width }, size);
    if (band) scale(context, [band.low, band.high], "band", { left: left + 1.5 * size + width, top, width }, size);
  }

  function scale(context, [low, high], colours, { left, top, width }, size) {
    const height = 0.6 * size;
    const gradient = context.createLinearGradient(left, 0, left + width, 0);
    const stops = Colors.stops(colours);
    stops.forEach((colour, i) => gradient.addColorStop(i / (stops.length - 1), colour));
    context.fillStyle = gradient;
    context.fillRect(left, top, width, height);
    context.strokeStyle = "#888";
    context.strokeRect(left, top, width, height);
    context.fillStyle = "#fff";
    context.fillText(low.toFixed(3), left, top + height + size);
    context.textAlign = "right";
    context.fillText(high.toFixed(3), left + width, top + height + size);
    context.textAlign = "left";
  }

  /** Text in as many lines as it needs. */
  function wrap(context, text, width) {
    const wrapped = [""];
    for (const word of text.split(" ")) {
      const longer = `${wrapped[wrapped.length - 1]} ${word}`.trim();
      if (context.measureText(longer).width <= width) wrapped[wrapped.length - 1] = longer;
      else wrapped.push(word);
    }
    return wrapped;
  }

  /** A canvas with the main view, with B beside it where it is shown, their captions and scales, and under them `lines`. */
  function draw(app) {
    const figures = [...document.querySelectorAll("#views figure:not([hidden])")];
    const canvases = figures.map((figure) => figure.querySelector("canvas"));
    const size = 13 * (window.devicePixelRatio || 1);
    const page = document.createElement("canvas");
    const context = page.getContext("2d");
    const height = Math.max(...canvases.map((canvas) => canvas.height));
    const gap = size / 3; // between A and B
    page.width = canvases.reduce((sum, canvas) => sum + canvas.width + gap, -gap);
    context.font = `${size}px ${FONT}`;
    const band = get("band-legend").hidden ? [] : [`Colour: ${get("band-text").textContent}`];
    const words = [...lines(app), ...band].flatMap((text) => wrap(context, text, page.width - size));
    page.height = height + 5 * size + 1.4 * size * words.length;
    context.fillStyle = "#000";
    context.fillRect(0, 0, page.width, page.height);
    context.font = `${size}px ${FONT}`; // a canvas of another size has lost it
    let left = 0;
    canvases.forEach((canvas, i) => {
      context.fillStyle = "#fff";
      context.fillText(figures[i].querySelector(".label").textContent, left + size / 2, 1.2 * size);
      context.drawImage(canvas, left, 1.8 * size);
      const { picture } = app.views[figures[i].id.replace("view-", "")];
      if (picture) scales(context, picture, left, height + 2.3 * size, canvas.width, size);
      left += canvas.width + gap;
    });
    context.fillStyle = "#fff";
    words.forEach((text, i) => context.fillText(text, size / 2, height + 5 * size + 1.4 * size * i + size / 2));
    return page;
  }

  const fileName = ({ volume, state }) =>
    `${volume(state.volume).name.replace(/\W+/g, "_")}_${state.index}_${state.mode}.png`;

  return { draw, fileName };
})();
