"use strict";

// Finding a λ: the best one by a metric, and good ones whose images differ.
class Finding {
  constructor(app) {
    this.app = app;
    this.thumbnails = [];
    this.for = null; // the slice that the list is of
    this.button = document.getElementById("diverse");
    this.list = document.getElementById("diverse-list");
    this.note = document.getElementById("diverse-note");
    this.result = document.getElementById("best-result");
    const metric = document.getElementById("best-metric");
    metric.replaceChildren(...app.run.best_metrics.map((name) => new Option(Readouts.describe(name).label, name)));
    document.getElementById("best").onclick = (event) => this.best(metric.value, event);
    this.button.onclick = () => this.diverse();
  }

  async waiting(button, work) {
    const place = this.app.place();
    button.disabled = true;
    button.classList.add("busy");
    try {
      const answer = await work(place);
      // The user may have gone on to another slice, which the answer says nothing about.
      return Store.sliceKey(place) === Store.sliceKey(this.app.place()) ? answer : null;
    } catch (error) {
      this.app.report(error);
      return null;
    } finally {
      button.disabled = false;
      button.classList.remove("busy");
    }
  }

  async best(metric, event) {
    const found = await this.waiting(event.currentTarget, (place) => this.app.source.best(place, metric));
    if (!found) return;
    const { label, unit } = Readouts.describe(metric);
    const input = this.app.slice() && this.app.slice().metrics[metric];
    const isWorse = Readouts.better(metric, found.value, input) === 1;
    const text = `${label} ${Readouts.format(metric, found.value)} ${unit}`.trim();
    this.result.textContent = isWorse ? `${text} ✗ worse than the input` : text;
    this.app.setLam(found.lam); // no event: what it took to find is no latency of the picture
  }

  async diverse() {
    const found = await this.waiting(this.button, (place) => this.app.source.diverse(place, 6));
    if (!found) return;
    const place = this.app.place();
    this.for = Store.sliceKey(place);
    const lams = found.lams.map((lam) => this.app.source.snap(lam));
    this.thumbnails = lams.map((lam) => this.thumbnail(lam));
    this.list.replaceChildren(...this.thumbnails.map(({ item }) => item));
    this.note.textContent = found.criterion;
    this.note.hidden = !found.criterion;
    this.app.requests.fillFirst(place, lams);
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

  clear() {
    this.for = null;
    this.thumbnails = [];
    this.list.replaceChildren();
    this.note.hidden = true;
    this.result.textContent = "";
  }

  /** Paints the thumbnails whose images have come, in the window of the views. */
  draw(low, high) {
    const place = this.app.place();
    const key = Store.sliceKey(place);
    if (this.shown !== key) {
      this.shown = key;
      this.result.textContent = "";
    }
    if (this.for && this.for !== key) this.clear();
    for (const thumbnail of this.thumbnails) {
      const entry = this.app.cache.get(place, thumbnail.lam);
      const key = `${low} ${high}`;
      if (entry && thumbnail.painted !== key) this.paint(thumbnail, entry, low, high);
      if (entry) thumbnail.painted = key;
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
