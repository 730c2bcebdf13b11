// @ts-check
"use strict";

// Files to take away from a page without a server: an image as NumPy array, or as NIfTI in the units of the file that was
// dropped, as `data/volumes/writing.py` makes them. A border that the page has added is cut off.
const ResultFiles = (() => {
  const HEADER = 352; // bytes of a NIfTI file before its extensions
  const COMMENT = 6; // the kind of an extension that holds text
  const FLOAT = 16; // the code of 32-bit numbers

  /**
   * The part of an image that was in the file, from top to bottom: { plane, h, w }.
   * `area` is { top, left, h, w }, where that part lies in an image of `width` columns.
   */
  function crop(plane, width, { top, left, h, w }) {
    const part = new Float32Array(h * w);
    for (let row = 0; row < h; row++) {
      const start = (row + top) * width + left;
      part.set(plane.subarray(start, start + w), row * w);
    }
    return { plane: part, h, w };
  }

  /** A .npy file of an array (h, w). */
  function toNumPy({ plane, h, w }) {
    const head = `{'descr': '<f4', 'fortran_order': False, 'shape': (${h}, ${w}), }`;
    const length = Math.ceil((10 + head.length + 1) / 64) * 64 - 10;
    const start = new Uint8Array(10);
    start.set([0x93, ...new TextEncoder().encode("NUMPY"), 1, 0]);
    new DataView(start.buffer).setUint16(8, length, true);
    return new Blob([start, `${head.padEnd(length - 1)}\n`, littleEndian(plane)]);
  }

  /**
   * A .nii file of (columns, rows, 1), rows from the bottom up, so that viewers show it upright. It claims no position.
   * `scale` has the values of the file that became 0 and 1; `metadata` goes into an extension.
   */
  function toNifti({ plane, h, w }, [low, high], description, metadata) {
    const text = new TextEncoder().encode(JSON.stringify(metadata));
    const size = Math.ceil((text.length + 8) / 16) * 16;
    const view = new DataView(new ArrayBuffer(HEADER + size));
    view.setInt32(0, 348, true);
    [3, w, h, 1, 1, 1, 1, 1].forEach((side, i) => view.setInt16(40 + 2 * i, side, true));
    view.setInt16(70, FLOAT, true);
    view.setInt16(72, 32, true); // bits of a number
    for (let i = 0; i < 8; i++) view.setFloat32(76 + 4 * i, 1, true); // sides of a voxel
    view.setFloat32(108, HEADER + size, true); // where the numbers start
    view.setFloat32(112, 1, true); // they are multiplied by it
    const bytes = new Uint8Array(view.buffer);
    bytes.set(new TextEncoder().encode(description).subarray(0, 79), 148);
    bytes.set(new TextEncoder().encode("n+1"), 344);
    bytes[348] = 1; // there is an extension
    view.setInt32(HEADER, size, true);
    view.setInt32(HEADER + 4, COMMENT, true);
    bytes.set(text, HEADER + 8);
    const values = Float32Array.from(plane, (_, i) => {
      return low + plane[(h - 1 - Math.floor(i / w)) * w + (i % w)] * (high - low);
    });
    return new Blob([bytes, littleEndian(values)]);
  }

  function littleEndian(values) {
    const view = new DataView(new ArrayBuffer(4 * values.length));
    values.forEach((value, i) => view.setFloat32(4 * i, value, true));
    return view.buffer;
  }

  return { crop, toNifti, toNumPy };
})();
