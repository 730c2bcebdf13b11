// @ts-check
"use strict";

// The controls of λ: a slider under the metric's curve for one, a pad on the metric's landscape for two, else sliders.
const Lambda = (() => {
  const THUMB = 14; // half the slider's thumb, in pixels: the curve starts where the thumb's middle does
  const SUBSCRIPTS = "₁₂₃₄₅₆₇₈₉";
  const STAR = "★";
  const HOW_TO_DRAG = {
    slider: "Drag the round handle: the image follows.",
    pad: "Drag the point on the square: the image follows.",
  };

  function element(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (key in node && key !== "list") node[key] = value;
      else node.setAttribute(key, value);
    }
    node.append(...children);
    return node;
  }

  const nameOf = (axis, axes) => (axes === 1 ? "λ" : `λ${SUBSCRIPTS[axis]}`);
  const lowEnd = ({ low, low_hint: hint }) => (hint ? `${hint} · ${low}` : low);
  const highEnd = ({ high, high_hint: hint }) => (hint ? `${high} · ${hint}` : high);
  const format = (lam) => lam.map((value) => value.toFixed(3)).join(", ");

  /** The values of a metric over λ that came with the run: their range, their best, and any point between. */
  class Landscape {
    constructor({ axes, values }, metric) {
      this.axes = axes;
      this.values = values[metric];
      const finite = this.values.filter(Number.isFinite);
      this.low = Math.min(...finite);
      this.high = Math.max(...finite);
      this.best = this.unravel(this.values.indexOf(Readouts.describe(metric).higher_is_better ? this.high : this.low));
    }

    unravel(flat) {
      const lam = [];
      for (const axis of [...this.axes].reverse()) {
        lam.unshift(axis[flat % axis.length]);
        flat = Math.floor(flat / axis.length);
      }
      return lam;
    }

    /** Linear between the points of two axes. */
    at(first, second) {
      const [i, part] = this.bracket(this.axes[0], first);
      const [j, other] = this.bracket(this.axes[1], second);
      const value = (di, dj) => this.values[(i + di) * this.axes[1].length + j + dj];
      const mixed = (di) => value(di, 0) * (1 - other) + value(di, 1) * other;
      return mixed(0) * (1 - part) + mixed(1) * part;
    }

    bracket(axis, value) {
      let left = 0;
      while (left < axis.length - 2 && axis[left + 1] <= value) left++;
      return [left, (value - axis[left]) / (axis[left + 1] - axis[left])];
    }
  }

  /** A curve of the metric above the slider; a click on it sets λ. */
  class Curve {
    constructor(parent, set) {
      this.area = element("div", { id: "sparkline" });
      this.plot = Profile.node(this.area, "svg", { role: "img" });
      this.range = element("p", { id: "sparkline-range", className: "range" });
      parent.append(this.range, this.area);
      this.landscape = null;
      dragged(this.area, (event, box) => set([(event.clientX - box.left - THUMB) / (box.width - 2 * THUMB)], event));
      new ResizeObserver(() => this.draw()).observe(this.area);
    }

    show(landscape, metric, lams) {
      this.landscape = landscape;
      this.metric = metric;
      this.lams = lams;
      this.draw();
    }

    draw() {
      if (!this.landscape || !this.area.clientWidth) return;
      const { low, high, axes, values, best } = this.landscape;
      const [width, height] = [this.area.clientWidth, this.area.clientHeight];
      const x = (lam) => THUMB + lam * (width - 2 * THUMB);
      const y = (value) => height - 6 - ((value - low) / (high - low || 1)) * (height - 22);
      this.plot.replaceChildren();
      this.plot.setAttribute("aria-label", `${Readouts.title(this.metric)} over λ, best at ${best[0]}`);
      for (const slot of ["B", "A"]) {
        const at = x(this.lams[slot][0]);
        Profile.node(this.plot, "line", { x1: at, x2: at, y1: 0, y2: height, class: `slot-${slot}` });
      }
      const points = values.map((value, i) => `${x(axes[0][i]).toFixed(1)},${y(value).toFixed(1)}`);
      Profile.node(this.plot, "polyline", { points: points.join(" "), class: "curve" });
      const top = y(values[axes[0].indexOf(best[0])]);
      Profile.node(this.plot, "text", { x: x(best[0]), y: top + 5, "text-anchor": "middle", class: "star" }, STAR);
      const range = [low, high].map((value) => Readouts.format(this.metric, value)).join(" to ");
      const { label, unit } = Readouts.describe(this.metric);
      const text = [label, range, unit].filter(Boolean).join(" ");
      this.range.textContent = `${text}; ${STAR} best mean at λ = ${best[0]}`;
    }
  }

  /** Calls `move` with each pointer event of a drag that starts on `target`, and with the box of `target`. */
  function dragged(target, move) {
    const follow = (event) => move(event, target.getBoundingClientRect());
    target.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      target.setPointerCapture(event.pointerId);
      follow(event);
    });
    target.addEventListener("pointermove", (event) => {
      if (target.hasPointerCapture(event.pointerId)) follow(event);
    });
  }

  /** Two λ at once: the first from left to right, the second from bottom to top. */
  class Pad {
    constructor(parent, lams, set) {
      const [across, up] = lams;
      this.canvas = element("canvas", { width: 128, height: 128 });
      this.marks = Object.fromEntries(
        Object.entries({ best: STAR, B: "B", A: "A" }).map(([name, textContent]) => [
          name,
          element("span", { id: `pad-${name.toLowerCase()}`, className: "mark", textContent }),
        ]),
      );
      this.marks.best.hidden = true;
      this.area = element(
        "div",
        {
          id: "lambda-pad",
          tabIndex: 0,
          role: "application",
          title: "Drag, or use the arrow keys: λ₁ from left to right, λ₂ from bottom to top; Shift makes steps of 0.1",
        },
        this.canvas,
        ...Object.values(this.marks),
      );
      this.range = element("p", { id: "pad-range", className: "range" });
      this.bar = element("span", { className: "bar" });
      this.bar.style.background = Colors.gradient("viridis");
      const vertical = element(
        "div",
        { className: "ends vertical" },
        element("span", {}, lowEnd(up)),
        element("b", {}, "λ₂"),
        element("span", {}, highEnd(up)),
      );
      const horizontal = element(
        "div",
        { className: "ends" },
        element("span", {}, lowEnd(across)),
        element("b", {}, "λ₁"),
        element("span", {}, highEnd(across)),
      );
      parent.append(element("div", { className: "pad" }, vertical, this.area, horizontal), this.range);
      dragged(this.area, (event, box) =>
        set([(event.clientX - box.left) / box.width, 1 - (event.clientY - box.top) / box.height], event),
      );
    }

    show(landscape, metric, lams, active) {
      if (landscape && landscape !== this.landscape) this.paint(landscape, metric);
      for (const slot of ["A", "B"]) {
        this.move(this.marks[slot], lams[slot]);
        this.marks[slot].classList.toggle("active", slot === active);
      }
      this.area.setAttribute("aria-label", `λ of ${active}: ${format(lams[active])}. Arrow keys move it.`);
    }

    move(mark, [across, up]) {
      mark.style.left = `${across * 100}%`;
      mark.style.top = `${(1 - up) * 100}%`;
    }

    paint(landscape, metric) {
      this.landscape = landscape;
      const { width, height } = this.canvas;
      const values = Float32Array.from({ length: width * height }, (_, i) =>
        landscape.at(((i % width) + 0.5) / width, 1 - (Math.floor(i / width) + 0.5) / height),
      );
      const context = this.canvas.getContext("2d");
      const pixels = context.createImageData(width, height);
      Colors.paint(values, landscape.low, landscape.high, "viridis", pixels.data);
      context.putImageData(pixels, 0, 0);
      this.marks.best.hidden = false;
      this.marks.best.title = `best on average: ${format(landscape.best)}`;
      this.move(this.marks.best, landscape.best);
      const ends = [landscape.low, landscape.high].map((value) => Readouts.format(metric, value));
      this.range.replaceChildren(
        element("span", {}, ends[0]),
        this.bar,
        element("span", {}, ends[1]),
        ` ${Readouts.title(metric)}; ${STAR} best mean`,
      );
    }
  }

  function slider(parent, { axis, axes, ends, set }) {
    const name = nameOf(axis, axes);
    const input = element("input", {
      type: "range",
      id: `lambda-slider-${axis + 1}`,
      className: "lambda",
      min: 0,
      max: 1,
      step: 0.001,
      title: `${name}: drag, or ← and → for steps of 0.01, with Shift 0.1, Home and End for the ends`,
      "aria-label": `${name}, from ${lowEnd(ends)} to ${highEnd(ends)}`,
    });
    input.addEventListener("input", (event) => set(axis, Number(input.value), event));
    const labels = element(
      "div",
      { className: "ends" },
      element("span", {}, lowEnd(ends)),
      element("span", {}, highEnd(ends)),
    );
    parent.append(input, labels);
    return input;
  }

  function number(parent, { axis, axes, set }) {
    const name = nameOf(axis, axes);
    const input = element("input", {
      type: "number",
      id: `lambda-number-${axis + 1}`,
      min: 0,
      max: 1,
      step: 0.01,
      title: `Type ${name}, from 0 to 1`,
    });
    const apply = (event) => {
      const value = Number(input.value);
      if (input.value !== "" && value >= 0 && value <= 1) set(axis, value, event);
    };
    input.addEventListener("input", apply);
    parent.append(element("label", {}, `${name} = `, input));
    return input;
  }

  /** What λ is, for this run. */
  function explanation(lams) {
    const ends = lams.map(({ low, high }, axis) => `${nameOf(axis, lams.length)}: 0 is ${low} alone, 1 is ${high} alone.`);
    const start = "The network can be trained for several aims (losses). λ says how much each aim counts.";
    return [start, ...ends, "Every λ gives another image of the same measurement; none is the true one."].join(" ");
  }

  class Controls {
    /** `change(lam, event)` is called with the λ vector that the user asks for in the active slot. */
    constructor(run, change) {
      const axes = run.lams.length;
      Terms.attach(document.querySelector("#lambda .term"), explanation(run.lams));
      document.getElementById("lambda-drag").textContent = HOW_TO_DRAG[axes === 2 ? "pad" : "slider"];
      this.evaluation = run.evaluation;
      this.lam = null;
      const set = (axis, value, event) => change(this.lam.map((old, k) => (k === axis ? value : old)), event);
      const parent = document.getElementById("lambda-axes");
      this.pad = axes === 2 ? new Pad(parent, run.lams, change) : null;
      this.curve = axes === 1 && this.evaluation ? new Curve(parent, change) : null;
      this.sliders = this.pad ? [] : run.lams.map((ends, axis) => slider(parent, { axis, axes, ends, set }));
      const typed = document.getElementById("lambda-numbers");
      this.numbers = run.lams.map((_, axis) => number(typed, { axis, axes, set }));
      this.landscape = null;
    }

    show({ lam, active, metric }) {
      this.lam = lam[active];
      document.getElementById("lambda").dataset.active = active;
      if (this.evaluation && this.metric !== metric) {
        this.metric = metric;
        this.landscape = new Landscape(this.evaluation, metric);
      }
      if (this.pad) this.pad.show(this.landscape, metric, lam, active);
      if (this.curve) this.curve.show(this.landscape, metric, lam);
      this.sliders.forEach((input, axis) => {
        input.value = this.lam[axis];
        input.setAttribute("aria-valuetext", this.lam[axis].toFixed(3));
      });
      this.numbers.forEach((input, axis) => {
        // What is being typed is not rewritten under the user's fingers.
        if (document.activeElement !== input) input.value = this.lam[axis].toFixed(3);
      });
    }
  }

  /** λ vectors from a text: "0, 0.25" for one λ, "0.5 0.1; 0.9 1" for more. Throws what is wrong with it. */
  function parseList(text, axes) {
    const parts = text.split(axes === 1 ? /[\s,;]+/ : ";").map((part) => part.trim()).filter(Boolean);
    const lams = parts.map((part) => part.split(/[\s,]+/).map(Number));
    const wrong = lams.findIndex((lam) => lam.length !== axes || !lam.every((value) => value >= 0 && value <= 1));
    if (!lams.length) throw new Error("Write the λ to export first.");
    const needed = axes === 1 ? "a number" : `${axes} numbers`;
    if (wrong >= 0) throw new Error(`"${parts[wrong]}" is not ${needed} from 0 to 1.`);
    return lams;
  }

  return { Controls, element, format, parseList };
})();
