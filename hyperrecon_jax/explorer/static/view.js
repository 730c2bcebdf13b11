// @ts-check
"use strict";

// One image on a canvas. Zoom and pan are shared by all views: `pan` is the point of the image, in parts of its width
// and height, that lies at the middle of every view; a zoom of 1 fits the image in.
class View {
  constructor(figure, onResize) {
    this.figure = figure;
    this.canvas = figure.querySelector("canvas");
    this.bitmap = document.createElement("canvas");
    this.painted = null;
    this.bandBitmap = document.createElement("canvas");
    this.paintedBand = null;
    this.picture = null;
    new ResizeObserver(() => {
      this.fit();
      onResize();
    }).observe(this.canvas);
  }

  fit() {
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.max(1, Math.round(this.canvas.clientWidth * ratio));
    this.canvas.height = Math.max(1, Math.round(this.canvas.clientHeight * ratio));
  }

  /** Width and height of the image, in widths of a pixel: pixels need not be square. */
  extent() {
    const { width, height, aspect } = this.picture;
    return { width, height: height * aspect };
  }

  /** Where the image lies on the canvas, in canvas pixels. */
  place({ zoom, pan }) {
    const { width, height } = this.extent();
    const scale = Math.min(this.canvas.width / width, this.canvas.height / height) * zoom;
    return {
      scale,
      left: this.canvas.width / 2 - pan[0] * width * scale,
      top: this.canvas.height / 2 - pan[1] * height * scale,
    };
  }

  /** The pointer's place in the image, in parts of its width and height. */
  locate(event, shared) {
    if (!this.picture) return null;
    const box = this.canvas.getBoundingClientRect();
    const ratio = this.canvas.width / box.width;
    const { scale, left, top } = this.place(shared);
    const { width, height } = this.extent();
    return [
      ((event.clientX - box.left) * ratio - left) / (scale * width),
      ((event.clientY - box.top) * ratio - top) / (scale * height),
    ];
  }

  /** How far, in parts of the image, the pan goes for a drag by so many CSS pixels. */
  travel(dx, dy, shared) {
    const ratio = this.canvas.width / this.canvas.getBoundingClientRect().width;
    const { scale } = this.place(shared);
    const { width, height } = this.extent();
    return [(dx * ratio) / (scale * width), (dy * ratio) / (scale * height)];
  }

  /**
   * `picture` is { plane, width, height, aspect, low, high, colours }, with letters, pixel, band and paintBand where there
   * are any, or null; `shared` has zoom, pan, smooth, profile, cursor.
   */
  draw(picture, shared) {
    this.picture = picture;
    const context = this.canvas.getContext("2d");
    context.fillStyle = "#000";
    context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    if (!picture) return;
    this.paint(picture);
    const { scale, left, top } = this.place(shared);
    context.imageSmoothingEnabled = shared.smooth;
    context.imageSmoothingQuality = "high";
    const { width, height } = this.extent();
    context.drawImage(this.bitmap, left, top, width * scale, height * scale);
    if (picture.band) this.band(context, picture, [left, top, width * scale, height * scale]);
    Anatomy.mark(context, picture, scale, this.figure);
    if (shared.profile) this.line(context, shared);
    if (shared.cursor && shared.cursor.view !== this) this.cross(context, shared);
  }

  // Most draws only move the image: the colours are computed again only when the plane or its window has changed.
  paint({ plane, width, height, low, high, colours }) {
    const last = this.painted;
    const isSame = last && last.plane === plane && last.low === low && last.high === high && last.colours === colours;
    if (isSame) return;
    this.bitmap.width = width;
    this.bitmap.height = height;
    const context = this.bitmap.getContext("2d");
    const pixels = context.createImageData(width, height);
    Colors.paint(plane, low, high, colours, pixels.data);
    context.putImageData(pixels, 0, 0);
    this.painted = { plane, low, high, colours };
  }

  /** A band over the picture: { plane, low, high, paint }. */
  band(context, { band, paintBand, width, height }, box) {
    if (this.paintedBand !== band) {
      Object.assign(this.bandBitmap, { width, height });
      const bandContext = this.bandBitmap.getContext("2d");
      const pixels = bandContext.createImageData(width, height);
      paintBand(band, pixels.data);
      bandContext.putImageData(pixels, 0, 0);
      this.paintedBand = band;
    }
    context.drawImage(this.bandBitmap, ...box);
  }

  point([u, v], shared) {
    const { scale, left, top } = this.place(shared);
    const { width, height } = this.extent();
    return [left + u * width * scale, top + v * height * scale];
  }

  // A dark line under a bright one shows on any tissue.
  stroke(context, colour, trace) {
    const ratio = window.devicePixelRatio || 1;
    for (const [style, width] of [["rgba(0, 0, 0, 0.65)", 3.5], [colour, 1.5]]) {
      context.beginPath();
      trace();
      context.strokeStyle = style;
      context.lineWidth = width * ratio;
      context.stroke();
    }
  }

  line(context, shared) {
    const ends = shared.profile.map((end) => this.point(end, shared));
    this.stroke(context, "#f2e25c", () => {
      context.moveTo(...ends[0]);
      context.lineTo(...ends[1]);
    });
    context.fillStyle = "#f2e25c";
    context.beginPath();
    context.arc(...ends[0], 3.5 * (window.devicePixelRatio || 1), 0, 2 * Math.PI);
    context.fill();
  }

  cross(context, shared) {
    const [x, y] = this.point(shared.cursor.at, shared);
    const arm = 6 * (window.devicePixelRatio || 1);
    this.stroke(context, "rgba(255, 255, 255, 0.9)", () => {
      context.moveTo(x - arm, y);
      context.lineTo(x + arm, y);
      context.moveTo(x, y - arm);
      context.lineTo(x, y + arm);
    });
  }
}
