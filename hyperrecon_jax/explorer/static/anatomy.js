// @ts-check
"use strict";

// What a picture says of the patient: letters at its edges, and a bar of millimetres. Both are drawn on the canvas, so that
// they are in saved pictures, too.
const Anatomy = (() => {
  const LENGTHS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500]; // mm
  const LONGEST = 0.3; // of the width of the view
  const WORDS = { R: "right", L: "left", A: "front", P: "back", S: "head", I: "feet" };

  /** The length of the bar, in mm; the longest that fits. */
  function barLength(pixelsPerMm, width) {
    const fitting = LENGTHS.filter((length) => length * pixelsPerMm <= LONGEST * width);
    return fitting.length ? fitting[fitting.length - 1] : null;
  }

  const barText = (length) => (length >= 10 ? `${length / 10} cm` : `${length} mm`);

  function text(context, words, x, y, align, baseline, ratio) {
    Object.assign(context, { textAlign: align, textBaseline: baseline, font: `600 ${13 * ratio}px system-ui, sans-serif` });
    context.lineWidth = 3 * ratio;
    context.lineJoin = "round";
    context.strokeStyle = "rgba(0, 0, 0, 0.8)";
    context.strokeText(words, x, y);
    context.fillStyle = "#fff";
    context.fillText(words, x, y);
  }

  function letters(context, { left, right, top, bottom }, ratio) {
    const { width, height } = context.canvas;
    const gap = 7 * ratio;
    text(context, left, gap, height / 2, "left", "middle", ratio);
    text(context, right, width - gap, height / 2, "right", "middle", ratio);
    text(context, top, width / 2, gap, "center", "top", ratio);
    text(context, bottom, width / 2, height - gap, "center", "bottom", ratio);
  }

  function bar(context, pixelsPerMm, ratio) {
    const { width, height } = context.canvas;
    const length = barLength(pixelsPerMm, width);
    if (!length) return "";
    const [x, y, end] = [12 * ratio, height - 12 * ratio, 12 * ratio + length * pixelsPerMm];
    for (const { style, thickness } of [{ style: "rgba(0, 0, 0, 0.8)", thickness: 5 }, { style: "#fff", thickness: 2 }]) {
      context.beginPath();
      context.moveTo(x, y);
      context.lineTo(end, y);
      context.strokeStyle = style;
      context.lineWidth = thickness * ratio;
      context.stroke();
    }
    text(context, barText(length), x, y - 5 * ratio, "left", "bottom", ratio);
    return barText(length);
  }

  /** Marks a drawn picture; `scale` is the number of canvas pixels for the width of a pixel of the image. */
  function mark(context, { letters: edges, pixel }, scale, figure) {
    const ratio = window.devicePixelRatio || 1;
    if (edges) letters(context, edges, ratio);
    figure.dataset.letters = edges ? `${edges.left} ${edges.right} ${edges.top} ${edges.bottom}` : "";
    figure.dataset.bar = pixel ? bar(context, scale / pixel[1], ratio) : "";
  }

  const inWords = (letter) => [...letter].map((one) => WORDS[one]).join(" and ");

  /** For those who do not see the letters. */
  function describe({ letters: edges }) {
    return edges ? `, left: the patient's ${inWords(edges.left)}, top: the patient's ${inWords(edges.top)}` : "";
  }

  return { describe, mark };
})();
