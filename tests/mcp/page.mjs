// Drives the page of `infill serve --http` as a person would: with the mouse, with keys alone, with a token.
//
//     PLAYWRIGHT=.../index.mjs node page.mjs INFILL [SCREENSHOT]
//
// Prints one line per check; the first that fails ends it. A tiny model with random weights paints.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const { chromium } = await import(process.env.PLAYWRIGHT);
const [infill, screenshot] = process.argv.slice(2);
const fixtures = resolve(dirname(fileURLToPath(import.meta.url)), "../fixtures");
const work = mkdtempSync(join(tmpdir(), "infill-page-"));
const MODEL = "tiny-sdxl-inpaint";
const PATIENCE = 120_000;
const children = [];

function check(what, so, shown = "") {
  console.log(`${so ? "ok    " : "FAILED"} ${what}`);
  if (!so) throw new Error(`${what} ${typeof shown === "string" ? shown : JSON.stringify(shown)}`);
}

/** Starts a server on a free port; its address. */
function serve(name, env = {}) {
  const child = spawn(
    infill,
    ["serve", "--http", "127.0.0.1:0", "--device", "cpu", "--store", join(work, name), "--models", join(fixtures, "models")],
    { env: { ...process.env, XDG_CONFIG_HOME: work, ...env }, stdio: ["ignore", "ignore", "pipe"] },
  );
  children.push(child);
  return new Promise((found, failed) => {
    let said = "";
    child.stderr.on("data", (text) => {
      said += text;
      const address = said.match(/listening on (http:\/\/[^/]+)/)?.[1];
      if (address) found(address);
    });
    child.on("exit", (code) => failed(new Error(`the server ended with ${code}: ${said}`)));
  });
}

/** A fresh page whose troubles are failures, and which may ask its own server only. */
async function visit(browser, address, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1240, height: 800 }, ...options });
  const page = await context.newPage();
  const troubles = [];
  page.on("console", (message) => message.type() === "error" && troubles.push(message.text()));
  page.on("pageerror", (error) => troubles.push(String(error)));
  page.on("request", (request) => {
    const url = request.url();
    if (!url.startsWith(`${address}/`) && !url.startsWith("blob:") && !url.startsWith("data:")) troubles.push(url);
  });
  page.setDefaultTimeout(PATIENCE);
  await page.goto(address);
  return { page, troubles };
}

/** How much of the mask is painted on screen, in 0..1. */
const painted = (page) =>
  page.$eval("#mask", (canvas) => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    let sum = 0;
    for (let i = 3; i < data.length; i += 4) sum += data[i];
    return sum / 255 / (data.length / 4);
  });

async function openPicture(page, name) {
  await page.waitForSelector("#modelId option", { state: "attached" });
  await page.setInputFiles("#file", join(fixtures, "images", name));
  await page.waitForSelector("#easel:visible");
}

async function few(page, { steps = 4, samples = 1, strength = 1 } = {}) {
  await page.selectOption("#modelId", MODEL);
  await page.$eval("#numInferenceSteps", (input, value) => ((input.value = value), input.dispatchEvent(new Event("input"))), steps);
  await page.$eval("#strength", (input, value) => ((input.value = value), input.dispatchEvent(new Event("input"))), strength);
  await page.fill("#numSamples", String(samples));
}

/** Paints a line over the middle of the picture. */
async function stroke(page, from, to, button = "left") {
  const frame = await page.locator("#easel").boundingBox();
  const at = ([x, y]) => [frame.x + x * frame.width, frame.y + y * frame.height];
  await page.mouse.move(...at(from));
  await page.mouse.down({ button });
  await page.mouse.move(...at(to), { steps: 12 });
  await page.mouse.up({ button });
}

async function withTheMouse(browser, address) {
  const { page, troubles } = await visit(browser, address);
  check("the page says which models are here", (await page.textContent("#server")).includes("models on this machine"));
  check("nothing runs without a picture", await page.isDisabled("#run"));
  await openPicture(page, "coffee.png");
  await stroke(page, [0.3, 0.4], [0.6, 0.4]);
  const once = await painted(page);
  check("the brush paints", once > 0.01 && once < 0.5, once);
  await stroke(page, [0.3, 0.65], [0.6, 0.65]);
  const twice = await painted(page);
  await page.click("#undo");
  check("undo takes a stroke back", Math.abs((await painted(page)) - once) < 1e-3);
  await page.click("#redo");
  check("redo brings it again", Math.abs((await painted(page)) - twice) < 1e-3);
  await page.locator("label.chip", { hasText: "Erase" }).click();
  await stroke(page, [0.3, 0.65], [0.6, 0.65]);
  check("the eraser erases", (await painted(page)) < twice);
  await page.click("#invert");
  check("invert turns it over", (await painted(page)) > 0.5);
  await page.click("#clear");
  check("clear empties it", (await painted(page)) === 0);
  await page.fill("#prompt", "a blue glass");
  await few(page);
  await page.click("#run");
  await page.waitForSelector("#trouble:visible");
  check("an empty mask is told", (await page.textContent("#trouble")).startsWith("Nothing is marked"));
  await page.locator("label.chip", { hasText: "Box" }).click();
  await stroke(page, [0.35, 0.25], [0.65, 0.75]);
  check("the box fills", Math.abs((await painted(page)) - 0.15) < 0.02, await painted(page));

  await page.fill("#seed", "x");
  await page.click("#run");
  await page.waitForSelector("#trouble:visible");
  check("a refusal names its field", (await page.getAttribute("#seed", "aria-invalid")) === "true");
  await page.fill("#seed", "18446744073709551615");
  await page.fill("#numSamples", "2");
  const stages = page.evaluate(() => new Promise((done) => {
    const [seen, previews] = [new Set(), new Set()];
    const [said, preview] = ["stage-said", "preview"].map((id) => document.getElementById(id));
    new MutationObserver(() => {
      seen.add(said.textContent);
      if (!preview.hidden) previews.add(preview.src);
      if (!document.getElementById("results").hidden) done({ seen: [...seen], previews: [...previews] });
    }).observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true });
  }));
  await page.$eval("#feather", (input) => ((input.value = 8), input.dispatchEvent(new Event("input"))));
  await page.click("#run");
  await page.waitForSelector("#gallery li");
  const { seen, previews } = await stages;
  check("progress is told in stages", seen.filter((text) => /step \d+ of/.test(text)).length >= 3, seen);
  check("no stage shows an id", seen.every((text) => !text.includes("asset_")), seen);
  check("pictures are shown on the way", previews.length >= 1, seen);
  check("the result is said aloud", (await page.textContent("#said")) === "2 pictures are ready");
  const seeds = await page.$$eval("#gallery .seed", (all) => all.map((one) => one.textContent));
  check("seeds stand side by side, in 64 bits", JSON.stringify(seeds) === '["Seed 18446744073709551615","Seed 0"]', seeds);
  check("the result is compared", await page.isVisible("#compare"));
  const cut = () => page.$eval("#after", (image) => image.style.clipPath);
  const before = await cut();
  const frame = await page.locator("#compare").boundingBox();
  await page.mouse.click(frame.x + frame.width * 0.2, frame.y + frame.height / 2);
  check("the slider moves the divider", (await cut()) !== before, await cut());
  const saved = page.waitForEvent("download");
  await page.locator("#gallery .acts a").first().click();
  const path = await (await saved).path();
  check("a result is saved whole", statSync(path).size > 10_000);
  await page.locator("#gallery .acts button", { hasText: "Edit" }).first().click();
  await page.waitForSelector("#easel:visible");
  check("a result is the next picture", (await painted(page)) === 0);
  await page.locator("#gallery .acts button", { hasText: "Seed" }).last().click();
  check("a seed is taken again", (await page.inputValue("#seed")) === "0");

  await stroke(page, [0.35, 0.25], [0.65, 0.75]);
  await few(page, { steps: 150, samples: 8 });
  await page.click("#run");
  await page.waitForFunction(() => document.getElementById("stage-said").textContent.includes("step"));
  await page.click("#cancel");
  await page.waitForFunction(() => document.getElementById("said").textContent === "Cancelled");
  await few(page);
  await page.click("#run");
  await page.waitForFunction(() => document.querySelectorAll("#gallery li").length === 3);
  check("after a cancelled run the next one runs", true);
  check("no trouble in the console, no request elsewhere", troubles.length === 0, troubles);
  await page.context().close();
}

async function withKeys(browser, address) {
  const { page, troubles } = await visit(browser, address, { colorScheme: "dark" });
  await openPicture(page, "chelsea.png");
  await few(page, { steps: 3 });
  await page.focus(".skip");
  const reached = new Set();
  for (let i = 0; i < 60; i++) {
    const focused = await page.evaluate(() => {
      const element = document.activeElement;
      const ringed = [element, element.closest(".chip, .button"), element.parentElement].filter(Boolean);
      const ring = ringed.some((one) => getComputedStyle(one).outlineStyle !== "none");
      return { id: element.id || element.name || element.className || element.localName, ring };
    });
    if (focused.id === "body" || (i > 0 && focused.id === "skip")) break;
    check(`a ring around ${focused.id}`, focused.ring);
    reached.add(focused.id);
    await page.keyboard.press("Tab");
  }
  for (const id of ["skip", "theme", "tool", "size", "feather", "invert", "clear", "easel", "file-again", "prompt", "negativePrompt",
    "modelId", "strength", "numInferenceSteps", "guidance", "numSamples", "seed", "run"]) {
    check(`${id} is reached by Tab`, reached.has(id), [...reached]);
  }
  await page.focus("#easel");
  await page.keyboard.down(" ");
  for (let i = 0; i < 8; i++) await page.keyboard.press("ArrowRight");
  for (let i = 0; i < 4; i++) await page.keyboard.press("ArrowDown");
  await page.keyboard.up(" ");
  const once = await painted(page);
  check("keys paint", once > 0.01, once);
  check("where the keys are is said", /\d+ % across, \d+ % down/.test(await page.textContent("#easel-said")));
  await page.keyboard.press("Control+z");
  check("Ctrl+Z undoes", (await painted(page)) === 0);
  await page.keyboard.press("Control+Shift+Z");
  check("Ctrl+Shift+Z redoes", Math.abs((await painted(page)) - once) < 1e-3);
  const size = await page.inputValue("#size");
  await page.keyboard.press("]");
  check("] makes the brush larger", Number(await page.inputValue("#size")) > Number(size));
  await page.keyboard.press("e");
  check("E erases", await page.isChecked("input[value=erase]"));
  await page.locator("summary").press("Enter");
  await page.locator("#box-mark").press("Enter");
  check("a box is marked by numbers", (await painted(page)) > 0.24);
  await page.focus("#prompt");
  await page.keyboard.type("a hat");
  await page.keyboard.press("Control+Enter");
  await page.waitForSelector("#gallery li");
  await page.focus("#split");
  const before = await page.inputValue("#split");
  await page.keyboard.press("ArrowLeft");
  check("keys move the divider", (await page.inputValue("#split")) !== before);
  const nameless = await page.$$eval("button, input, select, textarea, a", (all) =>
    all.filter((one) => !(one.labels?.length || one.getAttribute("aria-label") || one.textContent.trim())).map((one) => one.outerHTML));
  check("everything has a name", nameless.length === 0, nameless);
  check("no trouble in the console", troubles.length === 0, troubles);
  await page.context().close();
}

async function withAToken(browser, address, token) {
  const { page } = await visit(browser, address);
  await page.waitForSelector("#ask[open]");
  check("the page asks for the token", true);
  await page.fill("#token", "another-token-than-this");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.getElementById("ask-why").textContent.includes("another token"));
  check("a wrong token is told", true);
  await page.waitForSelector("#ask[open]");
  await page.fill("#token", token);
  await page.keyboard.press("Enter");
  await openPicture(page, "init.png");
  await few(page, { steps: 2 });
  await page.locator("summary").click();
  await page.click("#box-mark");
  await page.click("#run");
  await page.waitForSelector("#gallery li");
  check("with the token it paints", true);
  await page.reload();
  await page.waitForSelector("#modelId option", { state: "attached" });
  check("the tab keeps the token", !(await page.isVisible("#ask")));
  await page.context().close();
}

/** A picture for the docs, small as PNG: much plain sky. */
async function portrait(browser, address, file) {
  const { page } = await visit(browser, address, { viewport: { width: 1060, height: 720 } });
  await openPicture(page, "rocket.jpg");
  await page.$eval("#size", (input) => ((input.value = 40), input.dispatchEvent(new Event("input"))));
  for (const y of [0.16, 0.22, 0.28]) await stroke(page, [0.62, y], [0.84, y]);
  await page.fill("#prompt", "a full moon in the evening sky");
  await page.fill("#seed", "7");
  await few(page, { steps: 8, samples: 3, strength: 0.3 });
  await page.click("#run");
  await page.waitForSelector("#gallery li");
  await page.locator("#split").evaluate((input) => ((input.value = 730), input.dispatchEvent(new Event("input"))));
  await page.mouse.move(5, 5);
  await page.screenshot({ path: file, fullPage: true });
  await page.context().close();
}

const flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync"];
let browser;
try {
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: flags });
  const address = await serve("open");
  if (screenshot) {
    await portrait(browser, address, screenshot);
  } else {
    await withTheMouse(browser, address);
    await withKeys(browser, address);
    const token = "a-token-of-some-length";
    await withAToken(browser, await serve("closed", { INFILL_TOKEN: token }), token);
    console.log("all checks passed");
  }
} catch (error) {
  console.error(error);
  process.exitCode = 1;
} finally {
  await browser?.close();
  for (const child of children) child.removeAllListeners("exit").kill();
  rmSync(work, { recursive: true, force: true });
}
