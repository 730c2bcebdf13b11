// @ts-check
"use strict";

// Words that explain themselves: a button shows and hides, where it stands, the paragraph that it controls.
const Terms = (() => {
  /** Makes a button of the page show and hide the text. */
  function attach(button, text) {
    const note = document.getElementById(button.getAttribute("aria-controls"));
    button.setAttribute("aria-expanded", "false");
    note.textContent = text;
    button.onclick = () => {
      note.hidden = !note.hidden;
      button.setAttribute("aria-expanded", String(!note.hidden));
    };
  }

  /** A button for one of several words that share a paragraph, in which only the last one that was pressed is explained. */
  function button(word, text, noteId) {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", className: "term", textContent: word, title: text });
    button.setAttribute("aria-controls", noteId);
    button.setAttribute("aria-expanded", "false");
    button.onclick = () => {
      const note = document.getElementById(noteId);
      const isShown = button.getAttribute("aria-expanded") === "true";
      for (const other of document.querySelectorAll(`[aria-controls=${noteId}]`)) other.setAttribute("aria-expanded", "false");
      button.setAttribute("aria-expanded", String(!isShown));
      note.hidden = isShown;
      note.textContent = `${word.replace(/ [↑↓]$/, "")}: ${text}.`;
    };
    return button;
  }

  return { attach, button };
})();
