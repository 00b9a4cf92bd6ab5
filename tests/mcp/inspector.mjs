// Tries `infill serve` with the command line of the MCP inspector, over stdio and over HTTP.
//
//     node inspector.mjs INFILL PACKAGES
//
// PACKAGES is the folder whose node_modules hold the inspector; scripts/mcp-clients brings it. Prints one line per check;
// the first that fails ends it.

import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

import { Bench, LARGEST_REPLY, TOOL, check, small } from "./served.mjs";

const [infill, packages] = process.argv.slice(2).map((path) => resolve(path));
const program = join(packages, "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js");
const bench = new Bench(infill);

/** Runs one method; its exit status, its answer, and what was said beside it. */
function inspect(server, ...flags) {
  const ran = spawnSync(process.execPath, [program, "--cli", ...server, ...flags], {
    encoding: "utf8", timeout: 180_000, maxBuffer: 8 << 20, cwd: bench.folder, env: { ...bench.env, HOME: bench.folder },
  });
  let answer;
  try {
    answer = JSON.parse(ran.stdout);
  } catch {
    answer = undefined;
  }
  return { status: ran.status, answer, size: ran.stdout.length, said: `${ran.stdout}${ran.stderr}` };
}

/** Arguments as the inspector takes them: JSON, so that a seed stays a string. */
const pairs = (given) => Object.entries(given).flatMap(([name, value]) => ["--tool-arg", `${name}=${JSON.stringify(value)}`]);

function trial(label, server) {
  const listed = inspect(server, "--method", "tools/list", "--strict");
  check(`${label}: the tools are listed, and no schema is called unportable`,
    listed.status === 0 && listed.answer?.tools.some((tool) => tool.name === TOOL), listed.said);
  const call = (given) => inspect(server, "--method", "tools/call", "--tool-name", TOOL, ...pairs(given));
  const made = call(small());
  const link = made.answer?.content.find((block) => block.type === "resource_link");
  check(`${label}: a call gives a picture`, made.status === 0 && link && existsSync(fileURLToPath(link.uri)), made.said);
  check(`${label}: the reply is not large`, made.size < LARGEST_REPLY, String(made.size));
  const bad = call(small({ strength: 2 }));
  check(`${label}: a fault is told`, bad.said.includes("strength is 2; allowed: a number from 0.01 to 1"), bad.said);
  const dry = call(small({ dryRun: "true" }));
  check(`${label}: a dry run costs nothing`, dry.answer?.structuredContent.creativeUnitsCost === 0, dry.said);
}

try {
  trial("inspector, stdio", [infill, ...bench.args("stdio")]);
  trial("inspector, HTTP", [await bench.serve("http")]);
  console.log("all checks passed");
} catch (error) {
  console.error(error);
  process.exitCode = 1;
} finally {
  bench.close();
}
process.exit();
