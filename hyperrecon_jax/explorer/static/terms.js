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
    const made = document.createElement("button");
    Object.assign(made, { type: "button", className: "term", textContent: word, title: text });
    made.setAttribute("aria-controls", noteId);
    made.setAttribute("aria-expanded", "false");
    made.onclick = () => {
      const note = document.getElementById(noteId);
      const isShown = made.getAttribute("aria-expanded") === "true";
      for (const other of document.querySelectorAll(`[aria-controls=${noteId}]`)) other.setAttribute("aria-expanded", "false");
      made.setAttribute("aria-expanded", String(!isShown));
      note.hidden = isShown;
      note.textContent = `${word.replace(/ [↑↓]$/, "")}: ${text}.`;
    };
    return made;
  }

  return { attach, button };
})();
