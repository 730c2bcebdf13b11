"use strict";

// Figures of merit: their names, how they are written, and the table of them.
const Readouts = (() => {
  const NAMES = {
    psnr: { label: "PSNR", unit: "dB", digits: 2, higher: true, hint: "peak signal-to-noise ratio against the truth" },
    ssim: { label: "SSIM", unit: "", digits: 4, higher: true, hint: "structural similarity with the truth" },
    mae: { label: "MAE", unit: "", digits: 4, higher: false, hint: "mean absolute error" },
    hfen: { label: "HFEN", unit: "", digits: 3, higher: false, hint: "high-frequency error norm: error of the edges" },
    data_consistency: {
      label: "J",
      unit: "",
      digits: 3,
      hint: "J = ||A x̂ − y||²: how far the reconstruction has left the measurement",
    },
  };
  const LOWER = ["mse", "mae", "hfen"];

  function describe(metric) {
    const known = NAMES[metric];
    return known || { label: metric.toUpperCase(), unit: "", digits: 4, higher: !LOWER.includes(metric), hint: metric };
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

  /** Which of A and B is better by a metric; null where they are equal, unknown, or better has no meaning. */
  function better(metric, metricsA, metricsB) {
    const { higher } = describe(metric);
    const [a, b] = [metricsA[metric], metricsB[metric]];
    const known = higher !== undefined && Number.isFinite(a) && Number.isFinite(b);
    if (!known || format(metric, a) === format(metric, b)) return null;
    return a > b === higher ? "A" : "B";
  }

  function cell(metric, column, value, wins) {
    const made = document.createElement("td");
    made.dataset.metric = metric;
    made.dataset.of = column;
    made.textContent = format(metric, value);
    made.classList.toggle("better", wins);
    if (wins) made.title = "the better of A and B";
    return made;
  }

  function row(metric, columns) {
    const made = document.createElement("tr");
    const head = document.createElement("th");
    const { higher, hint } = describe(metric);
    head.scope = "row";
    head.title = hint;
    head.textContent = title(metric) + (higher === undefined ? "" : higher ? " ↑" : " ↓");
    const best = columns.B ? better(metric, columns.A || {}, columns.B) : null;
    const cells = ["A", "B", "input"].map((name) =>
      cell(metric, name, (columns[name] || {})[metric], best === name),
    );
    made.append(head, ...cells);
    return made;
  }

  /** `columns` maps A, B and input to their metrics, or to null where the column has nothing to say. */
  function table(body, metrics, columns) {
    body.replaceChildren(...[...metrics, "data_consistency"].map((metric) => row(metric, columns)));
  }

  return { describe, format, table, title };
})();
