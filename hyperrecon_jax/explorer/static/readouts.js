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

  /** Which of A and B is better by a metric; null if they are equal or missing, or the metric has no direction. */
  function better(metric, metricsA, metricsB) {
    const { higher_is_better: higher } = describe(metric);
    const [a, b] = [metricsA[metric], metricsB[metric]];
    const comparable = higher !== null && Number.isFinite(a) && Number.isFinite(b);
    if (!comparable || format(metric, a) === format(metric, b)) return null;
    return a > b === higher ? "A" : "B";
  }

  function cell(metric, column, value, wins) {
    const element = document.createElement("td");
    element.dataset.metric = metric;
    element.dataset.of = column;
    element.textContent = format(metric, value);
    element.classList.toggle("better", wins);
    if (wins) element.title = "the better of A and B";
    return element;
  }

  function row(metric) {
    const element = document.createElement("tr");
    const head = document.createElement("th");
    const { higher_is_better: higher, hint } = describe(metric);
    head.scope = "row";
    element.dataset.row = metric;
    const direction = higher === null ? "" : higher ? "; higher is better" : "; lower is better";
    head.append(Terms.button(title(metric) + (higher === null ? "" : higher ? " ↑" : " ↓"), hint + direction, "metric-hint"));
    element.append(head);
    return element;
  }

  function fill(row, columns) {
    const metric = row.dataset.row;
    const best = columns.B ? better(metric, columns.A || {}, columns.B) : null;
    const cells = ["A", "B", "input"].map((name) =>
      cell(metric, name, (columns[name] || {})[metric], best === name),
    );
    while (row.cells.length > 1) row.lastChild.remove();
    row.append(...cells);
  }

  /** `columns` maps A, B and input to their metrics, or to null for an empty column. */
  function table(body, metrics, columns) {
    const names = [...metrics, "data_consistency"];
    // The rows stay: a button in one of them may have the focus.
    const isSame = names.join() === [...body.rows].map(({ dataset }) => dataset.row).join();
    if (!isSame) body.replaceChildren(...names.map(row));
    for (const element of body.rows) fill(element, columns);
  }

  return { describe, format, load, table, title };
})();
