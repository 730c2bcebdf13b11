// @ts-check
"use strict";

// What the page tells the user: messages that stay until they are closed, and a banner while the server is away.
const Messages = (() => {
  /**
   * Adds a message; one with the same text goes. A message of work that goes on ("busy") is removed by its owner; it may
   * have a button that calls `cancel`.
   * @param {(() => void) | null} cancel
   */
  function toast(text, kind = "info", cancel = null) {
    const list = document.getElementById("toasts");
    for (const old of /** @type {HTMLElement[]} */ ([...list.children])) if (old.dataset.text === text) old.remove();
    const item = document.createElement("li");
    item.className = kind;
    item.dataset.text = text;
    const words = document.createElement("span");
    if (kind === "error") words.setAttribute("role", "alert");
    words.textContent = text;
    item.append(words);
    if (kind !== "busy") item.append(closing(item));
    if (cancel) item.append(Object.assign(document.createElement("button"), { type: "button", textContent: "Cancel", onclick: cancel }));
    list.append(item);
    list.scrollTop = list.scrollHeight;
    return item;
  }

  /** What is scrolled to must not end up under the messages: the layout knows their height. */
  function reserveRoom() {
    const list = document.getElementById("toasts");
    const measure = () => document.body.style.setProperty("--messages", `${list.offsetHeight}px`);
    new ResizeObserver(measure).observe(list);
  }

  function closing(item) {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", textContent: "✕", title: "Close this message" });
    button.setAttribute("aria-label", button.title);
    button.onclick = () => item.remove();
    return button;
  }

  const error = (problem) => toast(problem.message || String(problem), "error");

  function banner(text) {
    const place = document.getElementById("banner");
    place.hidden = !text;
    place.querySelector("span").textContent = text || "";
  }

  reserveRoom();

  return { banner, error, toast };
})();
