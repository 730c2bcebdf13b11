// @ts-check
"use strict";

// Intensity along a line, drawn as a plot.
const Profile = (() => {
  const SVG = "http://www.w3.org/2000/svg";
  const MARGIN = { left: 44, right: 12, top: 8, bottom: 32 };

  function node(parent, name, attributes, text) {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    parent.append(element);
    return element;
  }

  /** The plane at (x, y) in pixels, pixel centres at whole numbers; linear between them, the border's value beyond. */
  function bilinear({ plane, width, height }, x, y) {
    const column = Math.min(Math.max(x, 0), width - 1);
    const row = Math.min(Math.max(y, 0), height - 1);
    const [left, top] = [Math.min(Math.floor(column), width - 2), Math.min(Math.floor(row), height - 2)].map((value) =>
      Math.max(value, 0),
    );
    const [right, below] = [Math.min(left + 1, width - 1), Math.min(top + 1, height - 1)];
    const [dx, dy] = [column - left, row - top];
    const upper = plane[top * width + left] * (1 - dx) + plane[top * width + right] * dx;
    const lower = plane[below * width + left] * (1 - dx) + plane[below * width + right] * dx;
    return upper * (1 - dy) + lower * dy;
  }

  const length = ([start, end], { width, height }) =>
    Math.hypot((end[0] - start[0]) * width, (end[1] - start[1]) * height);

  /** The length of a line and its unit: mm where they are known, else widths of a pixel, which need not be square. */
  function measured([start, end], { width, height, aspect = 1, pixel }) {
    const [high, wide] = pixel || [aspect, 1];
    const extent = Math.hypot((end[0] - start[0]) * width * wide, (end[1] - start[1]) * height * high);
    return { extent, unit: pixel ? "mm" : "pixels" };
  }

  function sample(image, line) {
    const [start, end] = line;
    const count = Math.max(2, Math.ceil(2 * length(line, image)) + 1);
    return Array.from({ length: count }, (_, i) => {
      const part = i / (count - 1);
      const u = start[0] + (end[0] - start[0]) * part;
      const v = start[1] + (end[1] - start[1]) * part;
      return bilinear(image, u * image.width - 0.5, v * image.height - 0.5);
    });
  }

  function ticks(low, high, target) {
    const rough = (high - low) / target;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((multiple) => multiple * power >= rough);
    const first = Math.ceil(low / step - 1e-9);
    const count = Math.floor(high / step + 1e-9) - first + 1;
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    const at = Array.from({ length: count }, (_, i) => (first + i) * step);
    return at.map((value) => ({ at: value, text: value.toFixed(digits) }));
  }

  function frame(svg, box, x, y, { extent: across, unit }, low, high) {
    for (const { at, text } of ticks(low, high, 4)) {
      node(svg, "line", { x1: box.left, x2: box.right, y1: y(at), y2: y(at), class: "grid" });
      node(svg, "text", { x: box.left - 6, y: y(at) + 4, "text-anchor": "end" }, text);
    }
    for (const { at, text } of ticks(0, across, 6)) {
      node(svg, "text", { x: x(at), y: box.bottom + 14, "text-anchor": "middle" }, text);
    }
    const below = { x: box.right, y: box.bottom + 28, "text-anchor": "end" };
    node(svg, "text", below, `along the line, from its dot (${unit})`);
  }

  /** `curves` are { name, image, className }; the line's ends are in parts of the image. */
  function plot(svg, line, curves) {
    svg.replaceChildren();
    const [width, height] = [svg.clientWidth, svg.clientHeight];
    const across = line && curves.length ? measured(line, curves[0].image) : { extent: 0, unit: "" };
    if (!across.extent || !width) return;
    const box = { left: MARGIN.left, right: width - MARGIN.right, top: MARGIN.top, bottom: height - MARGIN.bottom };
    const sampled = curves.map((curve) => ({ ...curve, values: sample(curve.image, line) }));
    const all = sampled.flatMap((curve) => curve.values);
    const low = Math.min(0, ...all);
    const high = Math.max(...all, low + 0.01) * 1.04;
    const x = (distance) => box.left + (distance / across.extent) * (box.right - box.left);
    const y = (value) => box.bottom - ((value - low) / (high - low)) * (box.bottom - box.top);
    frame(svg, box, x, y, across, low, high);
    for (const { name, className, values } of sampled) {
      const along = (i) => x((i / (values.length - 1)) * across.extent);
      const points = values.map((value, i) => `${along(i).toFixed(1)},${y(value).toFixed(1)}`);
      node(svg, "polyline", { points: points.join(" "), class: `curve ${className}`, "data-curve": name });
    }
  }

  function legend(list, curves) {
    const items = curves.map(({ name, className }) => {
      const item = document.createElement("li");
      item.className = className;
      item.textContent = name;
      return item;
    });
    list.replaceChildren(...items);
  }

  return { bilinear, legend, node, plot };
})();
