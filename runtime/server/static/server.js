// The server's public endpoints, as any client uses them.

let key = "";
let working = new AbortController();

/** What the server said when it refused something, in its own words. */
export class Refused extends Error {
  constructor(status, message, retryAfter) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/** Send this API key from now on; it is kept in this variable and nowhere else. */
export function useKey(given) {
  key = given.trim();
}

/** Give up the work that has been asked for; the server forgets what of it still waits. Gives a signal of what follows. */
export function startOver() {
  working.abort();
  working = new AbortController();
  return working.signal;
}

async function ask(path, body) {
  const headers = {};
  if (key) headers.authorization = `Bearer ${key}`;
  if (body) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method: body ? "POST" : "GET",
      headers,
      body: body && JSON.stringify(body),
      cache: "no-store",
      signal: body && working.signal,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, `The server at ${location.host} does not answer (${error.message}). Is it still running?`, null);
  }
  if (response.ok) return response;
  const text = await response.text();
  throw new Refused(response.status, messageOf(text) || response.statusText, response.headers.get("retry-after"));
}

function messageOf(text) {
  try {
    const { error } = JSON.parse(text);
    return typeof error === "string" ? error : error.message;
  } catch {
    return text;
  }
}

/** Whether every model answers; false while they are being loaded. */
export async function ready() {
  try {
    return (await (await ask("/ready")).json()).ready;
  } catch (error) {
    if (error instanceof Refused && error.status === 503) return false;
    throw error;
  }
}

/** What is served. */
export async function about() {
  return (await ask("/about")).json();
}

/** The server's figures in Prometheus' text format. */
export async function metrics() {
  return (await ask("/metrics")).text();
}

/** Vectors (Float32Array, unit length) of texts for a task, and the tokens that were read. */
export async function embed(model, texts, task) {
  const body = { model, input: texts, input_type: task, encoding_format: "base64" };
  const reply = await (await ask("/v1/embeddings", body)).json();
  return { vectors: reply.data.map((item) => floats(item.embedding)), tokens: reply.usage.total_tokens };
}

/** The tokens of a text and the experts that read each of them. */
export async function route(model, text, task) {
  return (await ask("/routing", { model, input: text, input_type: task })).json();
}

function floats(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 4 }, (_, index) => view.getFloat32(4 * index, true));
}

/** Cosine of two vectors of unit length. */
export function cosine(a, b) {
  let sum = 0;
  for (let index = 0; index < a.length; index++) sum += a[index] * b[index];
  return sum;
}
