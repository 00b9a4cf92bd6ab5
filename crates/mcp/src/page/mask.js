// The mask as what was done to it, in pixels of the picture: it can be drawn at any size, and undone.

const INK = "rgb(240, 70, 140)";

export class Mask {
  #width;
  #height;
  /** What was done, and what was undone. */
  #done = [];
  #undone = [];
  /** The standard deviation of the blur of its edge, in pixels of the picture. */
  feather = 0;

  constructor(width, height) {
    this.#width = width;
    this.#height = height;
  }

  get canUndo() {
    return this.#done.length > 0;
  }

  get canRedo() {
    return this.#undone.length > 0;
  }

  /** A step: {kind: "stroke", erase, points: [{x, y, size}]}, {kind: "box", erase, left, top, right, bottom}, "invert", "clear". */
  add(step) {
    this.#done.push(step);
    this.#undone = [];
  }

  undo() {
    if (this.canUndo) this.#undone.push(this.#done.pop());
  }

  redo() {
    if (this.canRedo) this.#done.push(this.#undone.pop());
  }

  /** Draws all of it on a canvas of any size with the picture's proportions. */
  draw(canvas) {
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    this.#done.forEach((step) => this.drawStep(canvas, step));
  }

  /** Draws one step on top of what is there; of a stroke, only the points from `from` on. */
  drawStep(canvas, step, from = 0) {
    const context = canvas.getContext("2d");
    context.setTransform(canvas.width / this.#width, 0, 0, canvas.height / this.#height, 0, 0);
    context.globalCompositeOperation = step.erase ? "destination-out" : "source-over";
    context.fillStyle = context.strokeStyle = INK;
    if (step.kind === "stroke") {
      stroke(context, step.points, from);
    } else if (step.kind === "box") {
      context.fillRect(step.left, step.top, step.right - step.left, step.bottom - step.top);
    } else if (step.kind === "invert") {
      context.globalCompositeOperation = "xor";
      context.fillRect(0, 0, this.#width, this.#height);
    } else {
      context.clearRect(0, 0, this.#width, this.#height);
    }
    context.globalCompositeOperation = "source-over";
  }

  /** White where to paint on black, as large as the picture, as a PNG data URL; null where nothing is to be painted. */
  async export() {
    const canvas = new OffscreenCanvas(this.#width, this.#height);
    this.draw(canvas);
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    const pixels = context.getImageData(0, 0, this.#width, this.#height);
    const data = pixels.data;
    let values = new Uint8ClampedArray(this.#width * this.#height);
    let most = 0;
    for (let i = 0; i < values.length; i++) {
      values[i] = data[4 * i + 3];
      if (values[i] > most) most = values[i];
    }
    if (most < 128) return null;
    if (this.feather > 0) values = blurred(values, this.#width, this.#height, this.feather);
    for (let i = 0; i < values.length; i++) {
      data[4 * i] = data[4 * i + 1] = data[4 * i + 2] = values[i];
      data[4 * i + 3] = 255;
    }
    context.putImageData(pixels, 0, 0);
    return dataUrl(await canvas.convertToBlob({ type: "image/png" }));
  }
}

/** A line of discs whose size may change on the way. */
function stroke(context, points, from) {
  context.lineCap = context.lineJoin = "round";
  for (let i = Math.max(0, from); i < points.length; i++) {
    const here = points[i];
    const last = points[i - 1] ?? here;
    context.beginPath();
    context.lineWidth = here.size;
    context.moveTo(last.x, last.y);
    // A line to the same point is drawn by some browsers only.
    if (last.x === here.x && last.y === here.y) {
      context.arc(here.x, here.y, here.size / 2, 0, 2 * Math.PI);
      context.fill();
    } else {
      context.lineTo(here.x, here.y);
      context.stroke();
    }
  }
}

/** Three box blurs in each direction, close to a Gaussian of this standard deviation. Beyond the edge lies the edge. */
function blurred(values, width, height, deviation) {
  const radius = Math.max(1, Math.round((Math.sqrt(4 * deviation * deviation + 1) - 1) / 2));
  let from = values;
  let to = new Uint8ClampedArray(values.length);
  for (let pass = 0; pass < 3; pass++) {
    boxBlur(from, to, width, height, 1, width, radius);
    boxBlur(to, from, height, width, width, 1, radius);
  }
  return from;
}

/** Along lines of `length` values that are `stride` apart; lines are `between` apart. */
function boxBlur(from, to, length, lines, stride, between, radius) {
  const size = 2 * radius + 1;
  for (let line = 0; line < lines; line++) {
    const start = line * between;
    const at = (i) => from[start + Math.min(Math.max(i, 0), length - 1) * stride];
    let sum = 0;
    for (let i = -radius; i <= radius; i++) sum += at(i);
    for (let i = 0; i < length; i++) {
      to[start + i * stride] = sum / size;
      sum += at(i + radius + 1) - at(i - radius);
    }
  }
}

/** A blob as a data URL. */
export function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}
