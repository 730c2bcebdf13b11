// @ts-check
"use strict";

// Colours: tables of 256 RGB entries that turn a value into a pixel.
const Colors = (() => {
  const ANCHORS = {
    gray: "000000 ffffff",
    viridis: "440154 472d7b 3b528b 2c728e 21918c 28ae80 5ec962 addc30 fde725",
    inferno: "000004 210c4a 57106e 8a226a bc3754 e45a31 f98e09 f9cb35 fcffa4",
    band: "b5179e f72585 ff8500 ffdd00",
    // Crameri's berlin: black at zero, so that two equal images leave the screen dark.
    berlin: "9eb0ff 6ca9e6 3e90bc 286886 1a4256 11212a 0a0a0a 310f00 501803 7d341e a85a4a d2837a ffadad",
  };

  const channels = (hex) => [0, 2, 4].map((start) => parseInt(hex.slice(start, start + 2), 16));

  function table(name) {
    const anchors = ANCHORS[name].split(" ").map(channels);
    const colours = new Uint8Array(256 * 3);
    for (let entry = 0; entry < 256; entry++) {
      const position = (entry / 255) * (anchors.length - 1);
      const left = Math.min(Math.floor(position), anchors.length - 2);
      for (let channel = 0; channel < 3; channel++) {
        const [from, to] = [anchors[left][channel], anchors[left + 1][channel]];
        colours[entry * 3 + channel] = Math.round(from + (to - from) * (position - left));
      }
    }
    return colours;
  }

  const tables = Object.fromEntries(Object.keys(ANCHORS).map((name) => [name, table(name)]));

  /** Writes `plane`, with `low` at the table's first colour and `high` at its last, into the RGBA bytes `pixels`. */
  function paint(plane, low, high, name, pixels) {
    const colours = tables[name];
    const scale = 255 / Math.max(high - low, 1e-12);
    for (let i = 0; i < plane.length; i++) {
      const entry = 3 * Math.round(Math.min(255, Math.max(0, (plane[i] - low) * scale)) || 0);
      pixels[4 * i] = colours[entry];
      pixels[4 * i + 1] = colours[entry + 1];
      pixels[4 * i + 2] = colours[entry + 2];
      pixels[4 * i + 3] = 255;
    }
  }

  /** The colours from which a table is made, evenly spaced, as CSS has them. */
  const stops = (name) => ANCHORS[name].split(" ").map((hex) => `#${hex}`);

  /** The same colours as a CSS gradient from left to right. */
  const gradient = (name) => `linear-gradient(to right, ${stops(name).join(", ")})`;

  return { gradient, paint, stops };
})();
