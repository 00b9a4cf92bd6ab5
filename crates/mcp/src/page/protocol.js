// MCP over fetch: one POST per request, the answer as JSON or as an event stream. The protocol of 2026-07-28 has no
// sessions: whoever breaks the connection off has cancelled the call, and so has a tab that is closed.

const VERSION = "2026-07-28";
const META = "io.modelcontextprotocol/";
/** Nobody cuts this client off, so its calls wait as long as the server lets them. */
const WAIT = { "infill/waitSeconds": 604800 };

/** The server asks for a token, or for another one. */
export class Unauthorized extends Error {}

export class Mcp {
  #token;
  #id = 0;

  constructor(token) {
    this.#token = token;
  }

  #headers(more) {
    return this.#token ? { ...more, Authorization: `Bearer ${this.#token}` } : more;
  }

  /** The result of a request; `onProgress` hears each notification's params before it. */
  async request(method, params, { signal, onProgress } = {}) {
    const id = ++this.#id;
    const _meta = {
      [`${META}protocolVersion`]: VERSION,
      [`${META}clientInfo`]: { name: "infill page", version: "1" },
      [`${META}clientCapabilities`]: {},
      ...(onProgress && { progressToken: id, ...WAIT }),
    };
    const headers = this.#headers({
      "Content-Type": "application/json",
      Accept: "application/json, text/event-stream",
      "MCP-Protocol-Version": VERSION,
      "Mcp-Method": method,
      ...(params?.name && { "Mcp-Name": params.name }),
    });
    const body = JSON.stringify({ jsonrpc: "2.0", id, method, params: { ...params, _meta } });
    const response = await fetch("/mcp", { method: "POST", headers, body, signal });
    if (response.status === 401) throw new Unauthorized(await response.text());
    const type = response.headers.get("content-type") ?? "";
    if (type.startsWith("application/json")) return result(await response.json());
    if (!type.startsWith("text/event-stream")) {
      throw new Error((await response.text()).trim() || `The server answered ${response.status}.`);
    }
    for await (const message of messages(response.body)) {
      if (message.id === id) return result(message);
      if (message.method === "notifications/progress") onProgress?.(message.params);
    }
    throw new Error("The connection broke off before the answer came.");
  }

  /** The bytes of an asset. */
  async asset(id, signal) {
    const response = await fetch(`/assets/${id}`, { headers: this.#headers({}), signal });
    if (!response.ok) throw new Error((await response.text()).trim());
    return response.blob();
  }
}

function result(message) {
  if (message.error) throw new Error(message.error.message);
  return message.result;
}

/** The JSON of each event of a stream. */
async function* messages(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const events = text.split(/\r?\n\r?\n/);
    text = events.pop();
    for (const event of events) {
      const lines = event.split(/\r?\n/).filter((line) => line.startsWith("data:"));
      const data = lines.map((line) => line.slice(5).replace(/^ /, "")).join("\n");
      if (data) yield JSON.parse(data);
    }
  }
}
