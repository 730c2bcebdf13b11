// @ts-check
"use strict";

// Metrics: how their values are written, and the table of them.
const Readouts = (() => {
  let facts = {}; // metric -> { label, unit, digits, higher_is_better, hint }, as the run tells them

  function load(metricFacts) {
    facts = metricFacts;
  }

  function describe(metric) {
    return facts[metric];
  }

  function format(metric, value) {
    if (value === undefined || value === null) return "–";
    if (!Number.isFinite(value)) return value > 0 ? "∞" : "–";
    const { digits } = describe(metric);
    const size = Math.abs(value);
    if (size >= 1e4 || (size && size < 1e-3)) return value.toExponential(1);
    return size >= 100 ? value.toFixed(1) : value.toFixed(digits);
  }

  function title(metric) {
    const { label, unit } = describe(metric);
    return unit ? `${label} ${unit}` : label;
  }

  /** The better one of two values of a metric: 0 or 1; null if they look equal, are missing, or there is no direction. */
  function better(metric, first, second) {
    const { higher_is_better: higher } = describe(metric);
    const comparable = higher !== null && Number.isFinite(first) && Number.isFinite(second);
    if (!comparable || format(metric, first) === format(metric, second)) return null;
    return first > second === higher ? 0 : 1;
  }

  /**
   * What a score of A or B is worth: "worse" than the input, "better" than the input and than the other one, or null.
   * The better one of two that are worse than the input is still worse.
   */
  function judge(metric, value, other, input) {
    if (metric === "data_consistency") return null; // the input is no result: its J says nothing
    const toInput = better(metric, value, input);
    if (toInput === 1) return "worse";
    return toInput === 0 && better(metric, value, other) === 0 ? "better" : null;
  }

  /** Whether J is clearly more than noise alone explains: beyond three standard deviations, and by a tenth. */
  const isAboveNoise = (j, noise) => Boolean(noise) && j > noise.j + Math.max(3 * noise.spread, 0.1 * noise.j) + 1e-6;

  const MARKS = {
    better: { sign: "✓", words: "better than the input, and the better of A and B" },
    worse: { sign: "✗", words: "worse than the input" },
    "above-noise": { sign: "▲", words: "more than noise alone: the result leaves the measurement" },
  };

  function cell(metric, column, value, verdict) {
    const element = document.createElement("td");
    element.dataset.metric = metric;
    element.dataset.of = column;
    element.textContent = format(metric, value);
    if (verdict) {
      const { sign, words } = MARKS[verdict];
      const mark = Object.assign(document.createElement("span"), { className: "mark-sign", textContent: sign });
      mark.setAttribute("role", "img");
      mark.setAttribute("aria-label", words);
      element.classList.add(verdict);
      element.title = words;
      element.append(mark);
    }
    return element;
  }

  function heading(text, hint) {
    const head = Object.assign(document.createElement("th"), { scope: "row" });
    head.append(Terms.button(text, hint, "metric-hint"));
    return head;
  }

  function row(metric) {
    const element = document.createElement("tr");
    const { higher_is_better: higher, hint } = describe(metric);
    element.dataset.row = metric;
    const direction = higher === null ? "" : higher ? "; higher is better" : "; lower is better";
    element.append(heading(title(metric) + (higher === null ? "" : higher ? " ↑" : " ↓"), hint + direction));
    return element;
  }

  /** Fills the cells of a row anew: the values of A, B and the input, with a sign where one is worth a word. */
  function fill(row, columns, noise) {
    const metric = row.dataset.row;
    const values = Object.fromEntries(["A", "B", "input"].map((name) => [name, (columns[name] || {})[metric]]));
    const verdicts = {
      A: judge(metric, values.A, values.B, values.input),
      B: judge(metric, values.B, values.A, values.input),
    };
    if (metric === "data_consistency") {
      for (const slot of ["A", "B"]) if (isAboveNoise(values[slot], noise)) verdicts[slot] = "above-noise";
    }
    while (row.cells.length > 1) row.lastChild.remove();
    row.append(...["A", "B", "input"].map((name) => cell(metric, name, values[name], verdicts[name])));
  }

  /** The row of J that noise alone gives. */
  function noiseRow() {
    const element = document.createElement("tr");
    element.dataset.row = "noise";
    const hint = "J that the true image has: noise alone. A larger J leaves the measurement, a smaller one fits its noise.";
    const value = Object.assign(document.createElement("td"), { colSpan: 3 });
    value.dataset.metric = "noise_j";
    element.append(heading("J of noise", hint), value);
    return element;
  }

  /** Fills the row of `noiseRow`: `noise` is { j, spread, estimate }, or null if it is not known. */
  function fillNoise(row, noise) {
    const about = noise && noise.estimate ? "about " : "";
    const source = noise && noise.estimate ? ", read off the data" : "";
    const number = (figure) => format("data_consistency", figure);
    row.lastChild.textContent = noise ? `${about}${number(noise.j)} ± ${number(noise.spread)}${source}` : "unknown";
  }

  /** `columns` maps A, B and input to their metrics, or to null for an empty column; `noise` as for `fillNoise`. */
  function table(body, metrics, columns, noise) {
    const names = [...metrics, "data_consistency", ...(noise === undefined ? [] : ["noise"])];
    // The rows stay: a button in one of them may have the focus.
    const isSame = names.join() === [...body.rows].map(({ dataset }) => dataset.row).join();
    if (!isSame) body.replaceChildren(...names.map((name) => (name === "noise" ? noiseRow() : row(name))));
    for (const element of body.rows) {
      if (element.dataset.row === "noise") fillNoise(element, noise);
      else fill(element, columns, noise);
    }
  }

  /** Says in words where A or B is worse than the input, and which reasons are known: `differences`, sentences. */
  function verdict(element, metrics, { A, B, input }, differences) {
    const worse = (own) => metrics.filter((metric) => own && input && better(metric, own[metric], input[metric]) === 1);
    const labels = { A: worse(A), B: worse(B) };
    const list = (slot) => labels[slot].map((metric) => describe(metric).label).join(", ");
    const isSame = labels.A.join() === labels.B.join();
    const parts = (isSame ? ["A"] : ["A", "B"])
      .filter((slot) => labels[slot].length)
      .map((slot) => `${isSame ? "A and B are" : `${slot} is`} worse than the input by ${list(slot)}.`);
    const reasons = differences.length ? `Possible reasons: ${differences.join(" ")}` : "No reason is known.";
    element.hidden = !parts.length;
    element.textContent = parts.length ? `✗ ${parts.join(" ")} ${reasons}` : "";
  }

  return { better, describe, format, load, table, title, verdict };
})();
