"use strict";

// What the page tells the user: short messages in a corner, and a banner while the server is away.
const Messages = (() => {
  const SECONDS = 9;
  const SHOWN = 4;

  function toast(text, kind = "info") {
    const list = document.getElementById("toasts");
    for (const old of [...list.children].filter((item) => item.dataset.text === text)) old.remove();
    const item = document.createElement("li");
    item.className = kind;
    item.dataset.text = text;
    item.setAttribute("role", kind === "error" ? "alert" : "status");
    const words = document.createElement("span");
    words.textContent = text;
    const close = document.createElement("button");
    close.type = "button";
    close.textContent = "✕";
    close.title = "Close this message";
    close.setAttribute("aria-label", close.title);
    close.onclick = () => item.remove();
    item.append(words, close);
    list.append(item);
    while (list.children.length > SHOWN) list.firstChild.remove();
    if (kind !== "busy") setTimeout(() => item.remove(), SECONDS * 1000);
    return item;
  }

  const error = (problem) => toast(problem.message || String(problem), "error");

  function banner(text) {
    const place = document.getElementById("banner");
    place.hidden = !text;
    place.querySelector("span").textContent = text || "";
  }

  return { banner, error, toast };
})();
