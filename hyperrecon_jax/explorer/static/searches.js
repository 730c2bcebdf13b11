"use strict";

// Searches for a λ that are under way, each with a button that ends it. The answer goes to the slice that it was asked for;
// if the user is elsewhere by then, it waits in the list until it is shown or closed.
class Searches {
  constructor(app) {
    this.app = app;
    this.running = new Map(); // title -> { place, abort }
    this.list = document.getElementById("searches");
  }

  isHere(place) {
    return Store.sliceKey(place) === Store.sliceKey(this.app.place());
  }

  /** The answer of `work(signal, onProgress)` about a slice; null if there is none. */
  async run(title, place, work) {
    if (this.running.has(title)) return null;
    const abort = new AbortController();
    const { item, words, bar } = this.item(title, "Cancel", () => abort.abort());
    this.running.set(title, { place, abort });
    try {
      return await work(abort.signal, (progress) => {
        if (!progress) return;
        words.textContent = `${title}: ${progress.words}`;
        if (progress.share === null) bar.removeAttribute("value");
        else bar.value = progress.share;
      });
    } catch (error) {
      if (!Source.isAbort(error)) this.app.report(error);
      return null;
    } finally {
      this.running.delete(title);
      item.remove();
    }
  }

  /** Ends the searches in volumes that were removed, or that are shown in another plane now. */
  endOrphans() {
    for (const [title, { place, abort }] of this.running) {
      if (this.app.volume(place.volume)) continue;
      this.running.delete(title);
      abort.abort();
      Messages.toast(`${title}: ended, because its images are not open any more.`);
    }
  }

  /** Shows an answer with `show`, at once if its slice is on the screen, else when the user wants it. */
  deliver(place, text, show) {
    if (this.isHere(place)) {
      show();
      return;
    }
    const { item, bar } = this.item(text, "Show", () => {
      item.remove();
      if (this.app.showPlace(place)) show();
    });
    bar.remove();
    const close = Lambda.element("button", { type: "button", title: "Close this answer" }, "✕");
    close.setAttribute("aria-label", close.title);
    close.onclick = () => item.remove();
    item.append(close);
  }

  item(text, label, act) {
    const words = Lambda.element("span", {}, text);
    const bar = Lambda.element("progress", { max: 1 });
    bar.setAttribute("aria-label", text);
    const button = Lambda.element("button", { type: "button" }, label);
    button.onclick = act;
    const item = Lambda.element("li", {}, words, bar, button);
    this.list.append(item);
    return { item, words, bar };
  }
}
