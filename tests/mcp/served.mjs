// What the scripts share that try `infill serve` from Node: servers over a store of their own, and checks.

import { spawn } from "node:child_process";
import { cpSync, mkdtempSync, renameSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

export const root = resolve(dirname(fileURLToPath(import.meta.url)), "../..");
export const fixtures = join(root, "tests/fixtures");
export const TOOL = "post-inpaint-inferences";
export const REFERENCE_TOOL = "post-inpaint-ip-adapter-inferences";

/** Some hosts take no larger reply. */
export const LARGEST_REPLY = 1 << 20;

/** Prints one line; the first check that fails ends the script. */
export function check(what, so, shown = "") {
  console.log(`${so ? "ok    " : "FAILED"} ${what}`);
  if (!so) throw new Error(`${what} ${typeof shown === "string" ? shown : JSON.stringify(shown, null, 1)}`);
}

export const fixtureUrl = (path) => pathToFileURL(join(fixtures, path)).href;

/** Arguments that run in a moment. */
export const small = (more = {}) => ({
  modelId: "tiny-sd15-inpaint", prompt: "a red hat", seed: "7", numSamples: 1, numInferenceSteps: 3, width: 64, height: 64,
  image: fixtureUrl("images/init.png"), mask: fixtureUrl("images/mask.png"), ...more,
});

/** A folder for stores and models, and the servers in it; all of it goes with `close`. */
export class Bench {
  constructor(infill) {
    this.infill = infill;
    this.folder = mkdtempSync(join(tmpdir(), "infill-clients-"));
    this.models = join(this.folder, "models");
    cpSync(join(fixtures, "models"), this.models, { recursive: true });
    renameSync(join(this.models, "ip_adapter"), join(this.models, "ip-adapters"));
    this.env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("INFILL_")));
    Object.assign(this.env, { XDG_CONFIG_HOME: this.folder, INFILL_LOG: "off" });
    this.children = [];
  }

  /** The arguments of `infill` for a store of this name. */
  args(store) {
    return ["serve", "--device", "cpu", "--store", join(this.folder, store), "--allow-dir", fixtures, "--models", this.models];
  }

  /** Starts a server over HTTP; its URL. */
  serve(store) {
    const child = spawn(this.infill, [...this.args(store), "--http", "127.0.0.1:0"], {
      env: this.env, stdio: ["ignore", "ignore", "pipe"],
    });
    this.children.push(child);
    return new Promise((found, failed) => {
      let said = "";
      child.stderr.on("data", (text) => {
        said += text;
        const url = said.match(/listening on (http:\/\/[^ ,]+)/)?.[1];
        if (url) found(url);
      });
      child.on("exit", (code) => failed(new Error(`the server ended with ${code}: ${said}`)));
    });
  }

  close() {
    for (const child of this.children) child.removeAllListeners("exit").kill();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
