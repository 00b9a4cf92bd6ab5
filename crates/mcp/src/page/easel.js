// The picture with its mask over it: painting with mouse, pen, touch and keys.

import { Mask } from "./mask.js";

/** The mask is drawn on screen at no more than this; what is sent is drawn anew at the picture's own size. */
const MOST_SHOWN = 2048;

export class Easel {
  #root;
  #picture;
  #canvas;
  #cursor;
  #said;
  #changed;
  #mask = null;
  #step = null;
  #corner = null;
  /** Where the keys are, in pixels of the picture. */
  #at = { x: 0, y: 0 };
  tool = "brush";
  /** 1 to 100, as the slider has it. */
  size = 30;

  constructor(root, said, changed) {
    this.#root = root;
    this.#picture = root.querySelector("#picture");
    this.#canvas = root.querySelector("#mask");
    this.#cursor = root.querySelector("#cursor");
    this.#said = said;
    this.#changed = changed;
    root.addEventListener("pointerdown", (event) => this.#down(event));
    root.addEventListener("pointermove", (event) => this.#move(event));
    root.addEventListener("pointerup", () => this.#finish());
    root.addEventListener("pointercancel", () => this.#finish());
    root.addEventListener("pointerleave", () => (this.#cursor.hidden = !root.matches(":focus-visible")));
    root.addEventListener("contextmenu", (event) => event.preventDefault());
    root.addEventListener("keydown", (event) => this.#key(event));
    root.addEventListener("keyup", (event) => event.key === " " && this.#finish());
    root.addEventListener("focus", () => root.matches(":focus-visible") && this.#place(this.#at));
    root.addEventListener("blur", () => {
      this.#finish();
      this.#cursor.hidden = true;
    });
    new ResizeObserver(() => this.#blur()).observe(root);
  }

  get mask() {
    return this.#mask;
  }

  get width() {
    return this.#picture.naturalWidth;
  }

  get height() {
    return this.#picture.naturalHeight;
  }

  /** Shows a picture with an empty mask; fails where the browser can't show it. */
  async open(url) {
    this.#picture.src = url;
    await this.#picture.decode();
    this.#root.style.setProperty("--ratio", this.width / this.height);
    const scale = Math.min(1, MOST_SHOWN / Math.max(this.width, this.height));
    this.#canvas.width = Math.max(1, Math.round(this.width * scale));
    this.#canvas.height = Math.max(1, Math.round(this.height * scale));
    this.#mask = new Mask(this.width, this.height);
    this.#at = { x: this.width / 2, y: this.height / 2 };
    this.#step = null;
    this.#changed();
  }

  /** Does a step that is whole. */
  add(step) {
    this.#mask.add(step);
    this.#mask.drawStep(this.#canvas, step);
    this.#changed();
  }

  undo() {
    this.#mask.undo();
    this.#redraw();
  }

  redo() {
    this.#mask.redo();
    this.#redraw();
  }

  set feather(pixels) {
    if (this.#mask) this.#mask.feather = pixels;
    this.#blur();
  }

  #redraw() {
    this.#mask.draw(this.#canvas);
    this.#changed();
  }

  /** The feather as it will be, at the size on screen. */
  #blur() {
    const scale = this.width ? this.#root.clientWidth / this.width : 0;
    const pixels = (this.#mask?.feather ?? 0) * scale;
    this.#canvas.style.filter = pixels > 0 ? `blur(${pixels}px)` : "";
  }

  /** The brush's diameter in pixels of the picture. */
  get #diameter() {
    return Math.max(this.width, this.height) * (0.004 + 0.3 * (this.size / 100) ** 2);
  }

  #point(event) {
    const frame = this.#root.getBoundingClientRect();
    const pressure = event.pointerType === "pen" ? 0.3 + 0.7 * event.pressure : 1;
    return {
      x: ((event.clientX - frame.left) / frame.width) * this.width,
      y: ((event.clientY - frame.top) / frame.height) * this.height,
      size: this.#diameter * pressure,
    };
  }

  #down(event) {
    if (!this.#mask || event.button === 1) return;
    // The right button, and the other end of a pen, erase.
    const erase = this.tool === "erase" || event.button === 2 || event.button === 5;
    this.#root.setPointerCapture(event.pointerId);
    this.#begin(this.#point(event), erase);
  }

  #begin(point, erase) {
    if (this.tool === "box") {
      this.#corner = point;
      this.#step = { kind: "box", erase, left: point.x, top: point.y, right: point.x, bottom: point.y };
    } else {
      this.#step = { kind: "stroke", erase, points: [point] };
    }
    this.#mask.drawStep(this.#canvas, this.#step);
  }

  #move(event) {
    if (!this.#mask) return;
    const points = event.getCoalescedEvents?.() ?? [];
    for (const each of points.length ? points : [event]) this.#go(this.#point(each));
    this.#place(this.#point(event));
  }

  /** Draws on to a point, if anything is being drawn. */
  #go(point) {
    const step = this.#step;
    if (!step) return;
    if (step.kind === "box") {
      [step.left, step.right] = [this.#corner.x, point.x].sort((a, b) => a - b);
      [step.top, step.bottom] = [this.#corner.y, point.y].sort((a, b) => a - b);
      this.#mask.draw(this.#canvas);
      this.#mask.drawStep(this.#canvas, step);
    } else {
      step.points.push(point);
      this.#mask.drawStep(this.#canvas, step, step.points.length - 1);
    }
  }

  #finish() {
    const step = this.#step;
    this.#step = null;
    if (!step) return;
    const empty = step.kind === "box" && (step.right - step.left < 1 || step.bottom - step.top < 1);
    if (!empty) this.#mask.add(step);
    this.#changed();
  }

  /** Shows where the brush is, and how large. */
  #place(point) {
    const scale = this.#root.clientWidth / this.width;
    const diameter = this.tool === "box" ? 12 : Math.max(4, this.#diameter * scale);
    this.#at = { x: point.x, y: point.y };
    this.#cursor.hidden = false;
    this.#cursor.className = this.tool;
    this.#cursor.style.width = this.#cursor.style.height = `${diameter}px`;
    this.#cursor.style.transform =
      `translate(${point.x * scale - diameter / 2}px, ${point.y * scale - diameter / 2}px)`;
  }

  /** Shows the brush where it is, after its size or tool changed. */
  refresh() {
    if (this.#mask && !this.#cursor.hidden) this.#place(this.#at);
  }

  #key(event) {
    if (!this.#mask || event.ctrlKey || event.metaKey || event.altKey) return;
    const across = { ArrowLeft: -1, ArrowRight: 1 }[event.key] ?? 0;
    const down = { ArrowUp: -1, ArrowDown: 1 }[event.key] ?? 0;
    if (across || down) {
      const far = Math.max(this.width, this.height) * (event.shiftKey ? 0.1 : 0.02);
      const at = {
        x: Math.min(Math.max(this.#at.x + across * far, 0), this.width),
        y: Math.min(Math.max(this.#at.y + down * far, 0), this.height),
        size: this.#diameter,
      };
      this.#go(at);
      this.#place(at);
      this.#tell();
    } else if (event.key === " ") {
      if (!event.repeat && !this.#step) this.#begin({ ...this.#at, size: this.#diameter }, this.tool === "erase");
      this.#place(this.#at);
      this.#tell(this.tool === "erase" ? "erased at" : "painted at");
    } else {
      return;
    }
    event.preventDefault();
  }

  #tell(what = "") {
    const percent = (value, whole) => Math.round((100 * value) / whole);
    const [x, y] = [percent(this.#at.x, this.width), percent(this.#at.y, this.height)];
    this.#said.textContent = `${what} ${x} % across, ${y} % down`.trim();
  }
}
