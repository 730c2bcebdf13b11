// @ts-check
"use strict";

// Files that are dropped on a page without a server: pictures, which the browser decodes, and arrays of NumPy.
// They become images { h, w, plane } in [0, 1] of a size that the network takes.
const ImageFiles = (() => {
  const MAX_SIDE = 512; // pixels: larger images would take the browser many seconds
  const MIN_SIDE = 16;
  const MAX_VALUES = 2 ** 26; // of a file: more would fill the memory
  const MULTIPLE = 8; // of which the sides are multiples, as on the server
  const LUMINANCE = [0.299, 0.587, 0.114]; // of red, green and blue, by Rec. 601
  const NUMBERS = {
    "f2": Uint16Array, "f4": Float32Array, "f8": Float64Array, "u1": Uint8Array, "i1": Int8Array, "b1": Uint8Array,
    "u2": Uint16Array, "i2": Int16Array, "u4": Uint32Array, "i4": Int32Array, "u8": BigUint64Array, "i8": BigInt64Array,
  };

  function checkSize(name, count, h, w) {
    if (count * h * w > MAX_VALUES) throw new Error(`${name} has ${count * h * w} values, the page takes ${MAX_VALUES}.`);
    if (count < 1 || Math.min(h, w) < MIN_SIDE) {
      throw new Error(`${name} must have images of at least ${MIN_SIDE} x ${MIN_SIDE} pixels, got ${count} of ${h} x ${w}.`);
    }
  }

  async function readPicture(file, formats) {
    let bitmap;
    try {
      bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
    } catch {
      throw new Error(
        `This browser cannot read ${file.name} as a picture. The page takes ${formats}; ` +
          "the command  hyperrecon explore  opens a page that reads NIfTI, DICOM and k-space as well.",
      );
    }
    const { width: w, height: h } = bitmap;
    checkSize(file.name, 1, h, w);
    const canvas = document.createElement("canvas");
    Object.assign(canvas, { width: w, height: h });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(bitmap, 0, 0);
    const { data } = context.getImageData(0, 0, w, h);
    const plane = new Float32Array(h * w);
    for (let i = 0; i < plane.length; i++) {
      plane[i] = LUMINANCE.reduce((sum, part, channel) => sum + part * data[4 * i + channel], 0);
    }
    return { images: [{ h, w, plane }], notes: ["Read as grey of 8 bits."] };
  }

  /** Turns the bytes of each number over, in place: from big-endian to little-endian. */
  function reverseBytes(bytes, size) {
    for (let start = 0; start < bytes.length; start += size) bytes.subarray(start, start + size).reverse();
  }

  /** The images of a .npy file, (h, w) or (n, h, w). */
  async function readNumPy(file) {
    const buffer = await file.arrayBuffer();
    const view = new DataView(buffer.byteLength < 12 ? new ArrayBuffer(12) : buffer);
    const isLong = view.getUint8(6) > 1;
    const start = (isLong ? 12 : 10) + (isLong ? view.getUint32(8, true) : view.getUint16(8, true));
    const head = new TextDecoder("latin1").decode(buffer.slice(0, start));
    const [, order, type] = /'descr': '([<>|])(\w+)'/.exec(head) || [];
    const [, sides] = /'shape': \(([\d, ]*)\)/.exec(head) || [];
    const shape = (sides || "").split(",").filter((side) => side.trim()).map(Number);
    if (head.slice(1, 6) !== "NUMPY" || !(type in NUMBERS) || shape.length < 2 || shape.length > 3) {
      throw new Error(`${file.name} must hold real numbers (h, w) or (n, h, w), got ${type ? `${type} (${sides})` : "another file"}.`);
    }
    const [count, h, w] = shape.length === 3 ? shape : [1, ...shape];
    checkSize(file.name, count, h, w);
    const size = count * h * w * NUMBERS[type].BYTES_PER_ELEMENT;
    if (buffer.byteLength - start < size) throw new Error(`${file.name} is damaged: it must hold ${count * h * w} numbers.`);
    const bytes = new Uint8Array(buffer.slice(start, start + size));
    if (order === ">") reverseBytes(bytes, NUMBERS[type].BYTES_PER_ELEMENT);
    const numbers = new NUMBERS[type](bytes.buffer);
    const values = type === "f2" ? Float32Array.from(numbers, Half.toNumber) : numbers;
    const isFortran = head.includes("'fortran_order': True");
    const place = (n, row, column) => (isFortran ? n + count * (row + h * column) : (n * h + row) * w + column);
    const plane = (n) => Float32Array.from({ length: h * w }, (_, i) => Number(values[place(n, Math.floor(i / w), i % w)]));
    return { images: Array.from({ length: count }, (_, n) => ({ h, w, plane: plane(n) })), notes: [] };
  }

  /** The values as intensities: the largest becomes 1, the smallest or 0, whichever is lower, becomes 0. */
  function toIntensity(name, images) {
    let [low, high] = [0, -Infinity];
    for (const { plane } of images) {
      for (const value of plane) {
        if (!Number.isFinite(value)) throw new Error(`${name} must hold finite numbers up to 3.4e38, but it has NaN or larger ones.`);
        [low, high] = [Math.min(low, value), Math.max(high, value)];
      }
    }
    if (high <= low) throw new Error(`${name} must hold an image, but all its values are equal.`);
    const scaled = images.map(({ plane, ...size }) => ({ ...size, plane: plane.map((value) => (value - low) / (high - low)) }));
    const short = (value) => String(Number(value.toPrecision(4)));
    const note = low < 0 ? `Scaled so that ${short(low)} became 0 and ${short(high)} 1.` : `Scaled by its maximum ${short(high)}.`;
    return { scaled, note, scale: [low, high] };
  }

  /** For each of `to` pixels, which of `from` smaller pixels it covers, and how much of it each of them is. */
  function coverage(from, to) {
    return Array.from({ length: to }, (_, i) => {
      const [start, end] = [(i * from) / to, ((i + 1) * from) / to];
      const parts = [];
      for (let k = Math.floor(start); k < Math.min(from, Math.ceil(end - 1e-9)); k++) {
        parts.push([k, ((Math.min(end, k + 1) - Math.max(start, k)) * to) / from]);
      }
      return parts;
    });
  }

  /** An image of fewer pixels, each the mean of those that it covers. */
  function reduce({ h, w, plane }, height, width) {
    const [rows, columns] = [coverage(h, height), coverage(w, width)];
    const lines = new Float32Array(height * w);
    rows.forEach((parts, row) => {
      for (const [k, part] of parts) for (let i = 0; i < w; i++) lines[row * w + i] += part * plane[k * w + i];
    });
    const reduced = new Float32Array(height * width);
    for (let row = 0; row < height; row++) {
      columns.forEach((parts, column) => {
        for (const [k, part] of parts) reduced[row * width + column] += part * lines[row * w + k];
      });
    }
    return { h: height, w: width, plane: reduced };
  }

  /** The sides of images that are as large as the page takes. */
  function fittedSides(name, { h, w }) {
    const share = Math.min(1, MAX_SIDE / Math.max(h, w));
    const sides = [h, w].map((side) => Math.round(side * share));
    if (Math.min(...sides) < MIN_SIDE) {
      throw new Error(
        `${name} is too narrow: its images of ${h} x ${w} pixels, reduced to ${MAX_SIDE}, are ${sides.join(" x ")}, ` +
          `and the page takes at least ${MIN_SIDE} x ${MIN_SIDE}.`,
      );
    }
    return sides;
  }

  /** The image with a border of zeros, so that its sides are multiples of a number. */
  function addBorder({ h, w, plane }, multiple) {
    const [height, width] = [h, w].map((side) => Math.ceil(side / multiple) * multiple);
    const [top, left] = [Math.floor((height - h) / 2), Math.floor((width - w) / 2)];
    const bordered = new Float32Array(height * width);
    for (let row = 0; row < h; row++) {
      bordered.set(plane.subarray(row * w, (row + 1) * w), (row + top) * width + left);
    }
    return { h: height, w: width, plane: bordered, area: { top, left, h, w } };
  }

  function commonMultiple(factor) {
    let multiple = MULTIPLE;
    while (multiple % factor) multiple += MULTIPLE;
    return multiple;
  }

  /**
   * The images of a file, the values in it that became 0 and 1, where it lies in the images, and what was done to it, in
   * sentences. `factor` is that of super-resolution, else 1.
   */
  async function read(file, factor, formats) {
    const isArray = file.name.toLowerCase().endsWith(".npy");
    const { images, notes } = isArray ? await readNumPy(file) : await readPicture(file, formats);
    const [{ h, w }] = images;
    const sides = fittedSides(file.name, images[0]);
    const { scaled, note, scale } = toIntensity(file.name, images);
    notes.push(note);
    const isReduced = sides[0] < h || sides[1] < w;
    const fitted = isReduced ? scaled.map((image) => reduce(image, ...sides)) : scaled;
    if (isReduced) notes.push(`Reduced from ${h} x ${w} to ${sides.join(" x ")} pixels.`);
    const multiple = commonMultiple(factor);
    const bordered = fitted.map((image) => addBorder(image, multiple));
    const [{ area }] = bordered;
    const planes = bordered.map(({ plane, ...image }) => ({ h: image.h, w: image.w, plane }));
    if (planes[0].h !== fitted[0].h || planes[0].w !== fitted[0].w) {
      notes.push(`A border of zeros makes its sides multiples of ${multiple}.`);
    }
    return { planes, notes, scale, area };
  }

  return { read };
})();
