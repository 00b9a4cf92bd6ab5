// Joins the parts: the server, the easel, the form and the results.

import { Easel } from "./easel.js";
import { Form } from "./form.js";
import { dataUrl } from "./mask.js";
import { Mcp, Unauthorized } from "./protocol.js";
import { Results } from "./results.js";

const INPAINT = "post-inpaint-inferences";
const WITH_REFERENCE = "post-inpaint-ip-adapter-inferences";
/** What the server reads as it is; anything else that the browser can show is sent as PNG. */
const READ = ["image/png", "image/jpeg", "image/webp"];

const $ = (id) => document.getElementById(id);
const form = new Form($("form"));
const easel = new Easel($("easel"), $("easel-said"), showTools);
const results = new Results($("results"), $("compare"), {
  shown: () => view("compare"),
  use: (one) => open(one.blob, one.id),
  seed: (seed) => (form.seed = seed),
});
let server = null;
/** The picture that is worked on: {url, blob, asset}; the asset once the server has it. */
let picture = null;
let reference = null;
/** Set while a run is going on. */
let running = null;

// The server

async function connect() {
  server = new Mcp(sessionStorage.getItem("infill-token"));
  try {
    const about = await server.request("server/discover", {});
    const { tools } = await server.request("tools/list", {});
    // The server's instructions name its models, and of very many the first ones.
    const models = about.instructions?.match(/a model that is here \(([^)]*)\)/)?.[1] ?? "none yet";
    const ids = models === "none yet" ? [] : models.replace(/ and \d+ more$/, "").split(", ");
    form.models = ids;
    $("reference").hidden = !tools.some((tool) => tool.name === WITH_REFERENCE);
    const info = about.serverInfo ?? about._meta?.["io.modelcontextprotocol/serverInfo"];
    $("server").textContent = ids.length
      ? `${info?.name ?? "infill"} ${info?.version ?? ""} · ${ids.length} ${ids.length === 1 ? "model" : "models"} on this machine`
      : "No model is on this machine yet";
  } catch (error) {
    if (error instanceof Unauthorized) return askForToken();
    $("server").textContent = "The server can't be reached";
    form.fail(error.message);
  }
  showTools();
}

function askForToken() {
  if (sessionStorage.getItem("infill-token")) {
    $("ask-why").textContent = "The server has another token than this one.";
  }
  if (!$("ask").open) $("ask").showModal();
}

$("ask-form").addEventListener("submit", () => {
  sessionStorage.setItem("infill-token", $("token").value.trim());
  $("token").value = "";
  connect();
});
// Without it nothing works.
$("ask").addEventListener("cancel", (event) => event.preventDefault());

// The picture

async function open(blob, asset = null) {
  if (running) return;
  const url = URL.createObjectURL(blob);
  try {
    await easel.open(url);
  } catch {
    form.fail("The picture can't be read by this browser; allowed: PNG, JPEG, WebP and what else it can show");
    if (picture) await easel.open(picture.url);
    return;
  }
  if (!READ.includes(blob.type)) {
    const canvas = new OffscreenCanvas(easel.width, easel.height);
    canvas.getContext("2d").drawImage($("picture"), 0, 0);
    blob = await canvas.convertToBlob({ type: "image/png" });
  }
  picture = { url, blob, asset };
  easel.feather = Number($("feather").value);
  form.clear();
  $("empty").hidden = true;
  $("tools").hidden = $("below").hidden = false;
  view("mask");
  showTools();
}

function firstPicture(list) {
  return [...(list ?? [])].find((file) => file.type.startsWith("image/"));
}

for (const id of ["file", "file-again"]) {
  $(id).addEventListener("change", (event) => {
    const [file] = event.target.files;
    if (file) open(file);
    event.target.value = "";
  });
}
document.addEventListener("paste", (event) => {
  const file = firstPicture(event.clipboardData?.files);
  if (file) open(file);
});

/** Lets pictures be dropped on an element. */
function droppable(element, take) {
  element.addEventListener("dragover", (event) => {
    event.preventDefault();
    element.classList.add("over");
  });
  element.addEventListener("dragleave", () => element.classList.remove("over"));
  element.addEventListener("drop", (event) => {
    event.preventDefault();
    element.classList.remove("over");
    const file = firstPicture(event.dataTransfer?.files);
    if (file) take(file);
  });
}
droppable($("drop"), open);
// A picture that misses must not replace the page.
for (const kind of ["dragover", "drop"]) document.addEventListener(kind, (event) => event.preventDefault());

// The mask

function showTools() {
  const mask = easel.mask;
  $("undo").disabled = !mask?.canUndo;
  $("redo").disabled = !mask?.canRedo;
  $("run").disabled = !picture || running !== null;
}

for (const input of document.querySelectorAll("input[name=tool]")) {
  input.addEventListener("change", () => {
    easel.tool = input.value;
    easel.refresh();
  });
}
function tool(name) {
  document.querySelector(`input[name=tool][value=${name}]`).checked = true;
  easel.tool = name;
  easel.refresh();
}
$("size").addEventListener("input", () => {
  easel.size = Number($("size").value);
  easel.refresh();
});
easel.size = Number($("size").value);
$("feather").addEventListener("input", () => {
  $("feather-shown").textContent = `${$("feather").value} px`;
  easel.feather = Number($("feather").value);
});
$("undo").addEventListener("click", () => easel.undo());
$("redo").addEventListener("click", () => easel.redo());
$("invert").addEventListener("click", () => easel.add({ kind: "invert" }));
$("clear").addEventListener("click", () => easel.add({ kind: "clear" }));
$("box-mark").addEventListener("click", () => {
  if (!picture) return form.fail("Open a picture first");
  const [left, top, right, bottom] = ["left", "top", "right", "bottom"].map((side) => Number($(`box-${side}`).value) / 100);
  if (!(left < right && top < bottom)) return form.fail("The box is empty; allowed: left below right, top below bottom");
  const { width, height } = easel;
  easel.add({ kind: "box", left: left * width, top: top * height, right: right * width, bottom: bottom * height });
  $("easel-said").textContent = "The box is marked";
});

$("stage").addEventListener("keydown", (event) => {
  if (!easel.mask || event.target.matches("input[type=text]")) return;
  const key = event.key.toLowerCase();
  if (event.ctrlKey || event.metaKey) {
    if (key === "z" && !event.shiftKey) easel.undo();
    else if (key === "y" || key === "z") easel.redo();
    else return;
  } else if (key === "e") {
    tool(easel.tool === "erase" ? "brush" : "erase");
  } else if (key === "i") {
    easel.add({ kind: "invert" });
  } else if (key === "[" || key === "]") {
    $("size").value = easel.size + (key === "[" ? -5 : 5);
    $("size").dispatchEvent(new Event("input"));
  } else {
    return;
  }
  event.preventDefault();
});

// The views

function view(name) {
  const compares = name === "compare";
  document.querySelector(`input[name=view][value=${name}]`).checked = true;
  if (compares) $("views").hidden = false;
  $("compare").hidden = !compares;
  $("easel").hidden = compares;
}
for (const input of document.querySelectorAll("input[name=view]")) {
  input.addEventListener("change", () => view(input.value));
}

const THEMES = ["", "light", "dark"];
function theme(name) {
  document.documentElement.dataset.theme = name;
  localStorage.setItem("infill-theme", name);
  $("theme").setAttribute("aria-label", `Colours: ${name || "as the system"}`);
  $("theme").textContent = { "": "◐", light: "☀", dark: "☾" }[name];
}
$("theme").addEventListener("click", () => {
  theme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme ?? "") + 1) % THEMES.length]);
});
theme(localStorage.getItem("infill-theme") ?? "");

// The reference picture

function refer(file) {
  reference = file;
  $("reference-picture").src = file ? URL.createObjectURL(file) : "";
  for (const id of ["reference-picture", "reference-remove", "reference-settings"]) $(id).hidden = !file;
  $("reference-hint").hidden = Boolean(file);
}
$("reference-file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) refer(file);
  event.target.value = "";
});
$("reference-remove").addEventListener("click", () => refer(null));
droppable($("reference-drop"), refer);

// A run

/** The arguments of the call, and the tool that takes them. */
async function call() {
  const mask = await easel.mask.export();
  if (!mask) throw new Error("Nothing is marked; paint over what is to be made anew");
  const given = { ...form.read(), intermediateImages: true, image: picture.asset ?? (await dataUrl(picture.blob)), mask };
  if (!reference) return { name: INPAINT, arguments: given };
  given.ipAdapterImages = [await dataUrl(reference)];
  given.ipAdapterScales = [Number($("reference-scale").value)];
  given.ipAdapterType = document.querySelector("input[name=ipAdapterType]:checked").value;
  return { name: WITH_REFERENCE, arguments: given };
}

/** A picture that is not finished, until the next one. */
async function preview(id) {
  running.preview = id;
  try {
    const blob = await server.asset(id, running.stop.signal);
    // A later one may have overtaken it.
    if (running?.preview === id) showPreview(URL.createObjectURL(blob));
  } catch {
    // The next one may come.
  }
}

function showPreview(url) {
  URL.revokeObjectURL($("preview").src);
  $("preview").hidden = !url;
  if (url) $("preview").src = url;
  else $("preview").removeAttribute("src");
}

function progress({ progress: done, total, message: told }) {
  const [message, id] = told.split(", preview ");
  if (id && id !== running.preview) preview(id);
  const bar = $("bar");
  if (total) {
    bar.max = total;
    bar.value = done;
  } else {
    bar.removeAttribute("value");
  }
  if ($("stage-said").textContent === message) return;
  $("stage-said").textContent = message;
  // Spoken at most every few seconds: steps may be quick.
  if (Date.now() - running.spoken > 4000) {
    running.spoken = Date.now();
    $("said").textContent = message;
  }
}

async function run() {
  running = { stop: new AbortController(), began: Date.now(), spoken: 0 };
  const { signal } = running.stop;
  form.clear();
  showTools();
  $("progress").hidden = $("cancel").hidden = false;
  $("said").textContent = "Painting has begun";
  progress({ message: "sending" });
  const ticking = setInterval(() => ($("clock").textContent = `${Math.round((Date.now() - running.began) / 1000)} s`), 500);
  try {
    const from = picture;
    const result = await server.request("tools/call", await call(), { signal, onProgress: progress });
    const text = result.content.filter((block) => block.type === "text").map((block) => block.text).join("\n");
    if (result.isError) throw new Error(text);
    const { inference, job } = result.structuredContent;
    from.asset = inference.imageId;
    const made = await Promise.all(
      job.metadata.assetIds.map(async (id, index) => ({ id, blob: await server.asset(id, signal), seed: seedOf(inference.seed, index) })),
    );
    results.add(from.url, made);
    form.note(text.split("\n").filter((line) => line.startsWith("Note: ") && !line.includes("previews are shown")));
    $("said").textContent = made.length === 1 ? "The picture is ready" : `${made.length} pictures are ready`;
  } catch (error) {
    if (signal.aborted) $("said").textContent = "Cancelled";
    else if (error instanceof Unauthorized) askForToken();
    else form.fail(error.message);
  } finally {
    clearInterval(ticking);
    running = null;
    $("progress").hidden = $("cancel").hidden = true;
    showPreview(null);
    $("clock").textContent = $("stage-said").textContent = "";
    showTools();
  }
}

/** Picture i of a run has the seed s + i, in 64 bits. */
function seedOf(seed, index) {
  return BigInt.asUintN(64, BigInt(seed) + BigInt(index)).toString();
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (picture && !running) run();
});
$("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("form").requestSubmit();
});
$("cancel").addEventListener("click", () => {
  running?.stop.abort();
  $("run").focus();
});

connect();
