// @ts-check
"use strict";

// Finding a λ: the best one by a metric, and good ones whose images differ.
const ANSWERS = 16; // slices whose answers are kept

class Finding {
  constructor(app) {
    this.app = app;
    this.searches = new Searches(app);
    this.answers = new Map(); // slice -> { best: text, thumbnails, criterion }
    this.shown = null; // the slice whose answers are on the screen
    this.list = document.getElementById("diverse-list");
    this.note = document.getElementById("diverse-note");
    this.result = document.getElementById("best-result");
    const metric = document.getElementById("best-metric");
    metric.replaceChildren(...app.run.best_metrics.map((name) => new Option(Readouts.describe(name).label, name)));
    document.getElementById("best").onclick = () => this.best(metric.value);
    document.getElementById("diverse").onclick = () => this.diverse();
  }

  /** A place in words, with its acquisition: they tell two searches apart. */
  describe({ volume, index, acquisition }) {
    const slice = `slice ${index} of ${this.app.volume(volume).name}`;
    return acquisition ? `${slice} (${Acquisition.inWords(acquisition)})` : slice;
  }

  async best(metric) {
    const [place, slot] = [this.app.place(), this.app.state.active];
    const { label, unit } = Readouts.describe(metric);
    const input = this.app.slice() && this.app.slice().metrics[metric];
    const title = `Best λ by ${label} for ${slot}, ${this.describe(place)}`;
    const work = (signal, onProgress) => this.app.source.best(place, metric, signal, onProgress);
    const answer = await this.searches.run(title, place, work);
    if (!answer) return;
    const score = `${label} ${Readouts.format(metric, answer.value)} ${unit}`.trim();
    const isWorse = Readouts.better(metric, answer.value, input) === 1;
    const text = isWorse ? `${score} ✗ worse than the input` : score;
    this.keep(place, { best: text });
    // no event: what it took to find is no latency of the picture
    const show = () => this.app.setLam(answer.lam, null, slot);
    this.searches.deliver(place, `${title}: ${Lambda.format(answer.lam)}, ${text}`, show);
  }

  async diverse() {
    const place = this.app.place();
    const title = `Different good ones, ${this.describe(place)}`;
    const work = (signal, onProgress) => this.app.source.diverse(place, 6, signal, onProgress);
    const answer = await this.searches.run(title, place, work);
    if (!answer) return;
    const lams = answer.lams.map((lam) => this.app.source.snap(lam));
    this.keep(place, { thumbnails: lams.map((lam) => this.thumbnail(lam)), criterion: answer.criterion });
    this.searches.deliver(place, `${title}: here they are`, () => {});
  }

  keep(place, answer) {
    const key = Store.sliceKey(place);
    const earlier = this.answers.get(key);
    this.answers.delete(key);
    this.answers.set(key, { best: "", thumbnails: [], criterion: "", ...earlier, ...answer });
    if (this.answers.size > ANSWERS) this.answers.delete(this.answers.keys().next().value);
    if (this.shown === key) this.shown = null;
    this.app.schedule();
  }

  thumbnail(lam) {
    const canvas = Lambda.element("canvas", { width: 1, height: 1 });
    const caption = Lambda.element("span", {}, Lambda.format(lam));
    const button = Lambda.element("button", { type: "button", className: "thumbnail" }, canvas, caption);
    button.dataset.lam = Store.lamKey(lam);
    button.onclick = (event) => this.app.setLam(lam, event, event.shiftKey ? "B" : this.app.state.active);
    return { lam, canvas, caption, button, item: Lambda.element("li", {}, button), painted: null };
  }

  /** Shows the answers for this slice, and paints the thumbnails whose images have come, in the window of the views. */
  draw(low, high) {
    this.searches.endOrphans();
    const place = this.app.place();
    const key = Store.sliceKey(place);
    const { best, thumbnails, criterion } = this.answers.get(key) || { best: "", thumbnails: [], criterion: "" };
    if (this.shown !== key) {
      this.shown = key;
      this.result.textContent = best;
      this.list.replaceChildren(...thumbnails.map(({ item }) => item));
      this.note.textContent = criterion;
      this.note.hidden = !criterion;
      if (thumbnails.length) this.app.requests.fillFirst(place, thumbnails.map(({ lam }) => lam));
    }
    for (const thumbnail of thumbnails) {
      const entry = this.app.cache.get(place, thumbnail.lam);
      const range = `${low} ${high}`;
      if (entry && thumbnail.painted !== range) this.paint(thumbnail, entry, low, high);
      if (entry) thumbnail.painted = range;
    }
  }

  paint({ lam, canvas, caption, button }, { plane, metrics }, low, high) {
    const { width, height, aspect } = this.app.size();
    Object.assign(canvas, { width, height });
    Object.assign(canvas.style, { aspectRatio: `${width} / ${height * aspect}`, objectFit: "fill" });
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(width, height);
    Colors.paint(plane, low, high, "gray", pixels.data);
    context.putImageData(pixels, 0, 0);
    const metric = "psnr" in metrics ? "psnr" : "data_consistency";
    const { label, unit } = Readouts.describe(metric);
    const figure = Readouts.format(metric, metrics[metric]);
    caption.textContent = `λ ${Lambda.format(lam)}\n${unit ? `${figure} ${unit}` : `${label} ${figure}`}`;
    button.title = `λ = ${Lambda.format(lam)}, ${label} ${figure} ${unit}; Shift and click puts it into B`;
  }
}
