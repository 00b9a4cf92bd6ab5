// Tries `infill serve` with the official TypeScript clients of MCP, v1 and v2, over stdio and over HTTP.
//
//     node client_typescript.mjs INFILL PACKAGES
//
// PACKAGES is the folder whose node_modules hold the clients; scripts/mcp-clients brings them. Prints one line per check;
// the first that fails ends it. Both clients validate structured content against the tool's outputSchema by themselves.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

import { Bench, LARGEST_REPLY, REFERENCE_TOOL, TOOL, check, fixtureUrl, fixtures, root, small } from "./served.mjs";

const [infill, packages] = process.argv.slice(2).map((path) => resolve(path));
const require = createRequire(join(packages, "package.json"));
const v1 = {
  ...require("@modelcontextprotocol/sdk/client/index.js"),
  ...require("@modelcontextprotocol/sdk/client/stdio.js"),
  ...require("@modelcontextprotocol/sdk/client/streamableHttp.js"),
};
const v2 = { ...require("@modelcontextprotocol/client"), ...require("@modelcontextprotocol/client/stdio") };
const PATIENCE = 180_000;

const dataUrl = (path) => `data:image/png;base64,${readFileSync(join(fixtures, path)).toString("base64")}`;
const texts = (result) => result.content.filter((block) => block.type === "text").map((block) => block.text).join("\n");
const kinds = (result) => result.content.map((block) => block.type).join(" ");
const linked = (result) => readFileSync(fileURLToPath(result.content.find((block) => block.type === "resource_link").uri));

/** One client under test: which SDK, how it negotiates, over what. */
class Trial {
  constructor(label, sdk, options, transport) {
    Object.assign(this, { label, transport, modern: sdk === v2 });
    this.client = new sdk.Client({ name: "try-infill", version: "1" }, options);
  }

  check(what, so, shown) {
    check(`${this.label}: ${what}`, so, shown);
  }

  async call(name, given, options = {}) {
    const params = { name, arguments: given };
    const all = { timeout: PATIENCE, ...options };
    const result = await (this.modern ? this.client.callTool(params, all) : this.client.callTool(params, undefined, all));
    const size = Buffer.byteLength(JSON.stringify(result));
    if (size > LARGEST_REPLY) throw new Error(`a reply of ${size} bytes`);
    return result;
  }

  async run() {
    await this.client.connect(this.transport);
    this.check("the server says who it is", this.client.getServerVersion()?.name === "infill");
    this.check("and how it is used", this.client.getInstructions()?.includes(TOOL));
    await this.tools();
    const asset = await this.pictures();
    await this.around(asset);
    await this.references();
    await this.refusals();
    await this.cancelling();
    await this.client.close();
  }

  async tools() {
    const { tools } = await this.client.listTools();
    for (const name of [TOOL, REFERENCE_TOOL]) {
      const published = JSON.parse(readFileSync(join(root, `crates/mcp/src/tools/${name}.tool.json`), "utf8"));
      const tool = tools.find((one) => one.name === name);
      // As text: the order of properties counts.
      this.check(`the schema of ${name} is the reference's`,
        JSON.stringify(tool?.inputSchema) === JSON.stringify(published.inputSchema));
      this.check(`${name} has an output schema`, tool.outputSchema?.type === "object");
    }
    this.check("every tool has a title and says what it may do",
      tools.every((tool) => tool.title && typeof tool.annotations?.readOnlyHint === "boolean"), tools);
  }

  async pictures() {
    const byData = await this.call(TOOL, small({ image: dataUrl("images/init.png"), mask: dataUrl("images/mask.png") }));
    this.check("a data URL gives a picture", !byData.isError && kinds(byData) === "text image resource_link", byData);
    const told = [];
    await this.call(TOOL, small({ strength: 1, numInferenceSteps: 8 }), { onprogress: (progress) => told.push(progress) });
    const grows = told.every(({ progress }, index) => index === 0 || progress > told[index - 1].progress);
    this.check("progress is told and grows",
      grows && told.filter(({ message }) => message?.includes("step")).length >= 2, told);
    const byFile = await this.call(TOOL, small());
    this.check("a file URL gives the same picture", linked(byFile).equals(linked(byData)), byFile);
    const [asset] = byData.structuredContent.job.metadata.assetIds;
    this.check("the text names the asset", texts(byData).includes(asset), texts(byData));
    const { jobId } = byData.structuredContent.job;
    const looked = await this.call("get-job-id", { jobId });
    this.check("its job gives the picture again", linked(looked).equals(linked(byData)), looked);
    const about = await this.call("get-assets-by-asset-id", { assetId: asset });
    this.check("and so does its asset id", linked(about).equals(linked(byData)), about);
    const two = await this.call(TOOL, small({ image: asset, numSamples: 2 }));
    this.check("a result is the next image, and two come out",
      kinds(two) === "text image image resource_link resource_link", two);
    return asset;
  }

  /** Prompts, resources and completion, with a picture that was made. */
  async around(asset) {
    const { prompts } = await this.client.listPrompts();
    this.check("three prompts", prompts.map(({ name }) => name).join(" ") === "remove replace match-reference", prompts);
    const filled = await this.client.getPrompt({
      name: "replace", arguments: { image: asset, mask: asset, replacement: "a wooden bench", modelId: "tiny-sd15-inpaint" },
    });
    const told = JSON.stringify(filled.messages);
    this.check("a prompt names the tool and its arguments",
      [TOOL, asset, "a wooden bench", "tiny-sd15-inpaint"].every((word) => told.includes(word)), told);
    const { resourceTemplates } = await this.client.listResourceTemplates();
    this.check("three kinds of resources", resourceTemplates.map(({ uriTemplate }) => uriTemplate).join(" ")
      === "asset://{id} job://{id} model://{id}", resourceTemplates);
    const { resources } = await this.client.listResources();
    this.check("the picture is a resource", resources.some(({ uri }) => uri === `asset://${asset}`), resources);
    const { contents } = await this.client.readResource({ uri: `asset://${asset}` });
    this.check("and is read whole", contents[0].mimeType === "image/png"
      && Buffer.from(contents[0].blob, "base64").subarray(1, 4).toString() === "PNG", contents);
    const missing = await this.client.readResource({ uri: `asset://${"asset_".padEnd(28, "A")}` }).then(() => 0, (error) => error.code);
    this.check("one that is not there is an error", missing === -32002 || missing === -32602, String(missing));
    const { completion } = await this.client.complete({
      ref: { type: "ref/resource", uri: "model://{id}" }, argument: { name: "id", value: "tiny-sd15-i" },
    });
    this.check("a model's id is completed", completion.values[0] === "tiny-sd15-inpaint", completion);
  }

  async references() {
    const look = await this.call(REFERENCE_TOOL, small({ ipAdapterImages: [dataUrl("images/coffee.png")], ipAdapterScales: [1] }));
    this.check("a reference by data URL", !look.isError && look.structuredContent.inference.ipAdapterScales[0] === 1, look);
    const again = await this.call(REFERENCE_TOOL,
      small({ ipAdapterImages: [fixtureUrl("images/coffee.png")], ipAdapterScales: [1] }));
    this.check("and by file URL give the same picture", linked(again).equals(linked(look)), again);
  }

  async refusals() {
    const bad = await this.call(TOOL, small({ strength: 2, width: 68, scheduler: "Euler", steps: 3, image: "file:///etc/passwd" }));
    const faults = texts(bad).split("\n");
    this.check("all faults are told at once, a sentence each", bad.isError && faults.length === 5
      && ["strength is 2", "width is 68", 'scheduler is "Euler"', "steps is not", "image is"]
        .every((fault) => faults.some((line) => line.startsWith(fault))), bad);
    const dry = await this.call(TOOL, small({ dryRun: "true" }));
    this.check("a dry run costs nothing", !dry.isError && dry.structuredContent.creativeUnitsCost === 0, dry);
    const unknown = await this.call("no-such-tool", {}).then((result) => result.isError && texts(result), (error) => String(error));
    this.check("an unknown tool is refused with the names of those there are", String(unknown).includes(TOOL), unknown);
  }

  async cancelling() {
    const stop = new AbortController();
    // Cancelled at its first step.
    const endless = this.call(TOOL, small({ numInferenceSteps: 150, numSamples: 128, strength: 1 }), {
      signal: stop.signal, onprogress: ({ message }) => message?.includes("step") && stop.abort("enough"),
    });
    this.check("a call is cancelled", (await endless.then(() => "answered", () => "stopped")) === "stopped");
    const next = await this.call(TOOL, small());
    this.check("and makes room for the next", !next.isError, next);
  }
}

const bench = new Bench(infill);
try {
  const url = new URL(await bench.serve("http"));
  const stdio = (sdk, store) => new sdk.StdioClientTransport({
    command: infill, args: bench.args(store), env: bench.env, maxBufferSize: 64 << 20,
  });
  const modes = [
    ["v1", v1, {}],
    ["v2 as of 2025", v2, { versionNegotiation: { mode: "legacy" } }],
    ["v2 as of 2026", v2, { versionNegotiation: { mode: { pin: "2026-07-28" } } }],
    ["v2 by itself", v2, { versionNegotiation: { mode: "auto" } }],
  ];
  for (const [label, sdk, options] of modes) {
    await new Trial(`${label}, stdio`, sdk, options, stdio(sdk, label.replaceAll(" ", "-"))).run();
    await new Trial(`${label}, HTTP`, sdk, options, new sdk.StreamableHTTPClientTransport(url)).run();
  }
  console.log("all checks passed");
} catch (error) {
  console.error(error);
  process.exitCode = 1;
} finally {
  bench.close();
}
// A client that failed may hold its server open.
process.exit();
