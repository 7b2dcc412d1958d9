// Client of the server's public endpoints.

let apiKey = "";
let current = new AbortController();

/** Error response of the server, with its message. */
export class ApiError extends Error {
  constructor(status, message, retryAfter) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/** Set the API key of further requests. It is kept in this variable only. */
export function setApiKey(key) {
  apiKey = key.trim();
}

/** Abort the requests in progress, which the server then drops from its queue. Returns the signal of the next requests. */
export function abortRequests() {
  current.abort();
  current = new AbortController();
  return current.signal;
}

async function request(path, body) {
  const headers = {};
  if (apiKey) headers.authorization = `Bearer ${apiKey}`;
  if (body) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method: body ? "POST" : "GET",
      headers,
      body: body && JSON.stringify(body),
      cache: "no-store",
      signal: body && current.signal,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, `The server at ${location.host} did not respond (${error.message}). Is it still running?`, null);
  }
  if (response.ok) return response;
  const text = await response.text();
  throw new ApiError(response.status, errorMessage(text) || response.statusText, response.headers.get("retry-after"));
}

function errorMessage(text) {
  try {
    const { error } = JSON.parse(text);
    return typeof error === "string" ? error : error.message;
  } catch {
    return text;
  }
}

/** Return whether all models have been loaded. */
export async function isReady() {
  try {
    return (await (await request("/ready")).json()).ready;
  } catch (error) {
    if (error instanceof ApiError && error.status === 503) return false;
    throw error;
  }
}

/** Get the version of the server and its models. */
export async function fetchAbout() {
  return (await request("/about")).json();
}

/** Get the server's metrics in Prometheus' text format. */
export async function fetchMetrics() {
  return (await request("/metrics")).text();
}

/** Embed texts for a task. Returns unit vectors (Float32Array) and the number of tokens. */
export async function embed(model, texts, task) {
  const body = { model, input: texts, input_type: task, encoding_format: "base64" };
  const reply = await (await request("/v1/embeddings", body)).json();
  return { vectors: reply.data.map((item) => decodeFloats(item.embedding)), tokens: reply.usage.total_tokens };
}

/** Get the tokens of a text and the experts of each token. */
export async function fetchRouting(model, text, task) {
  return (await request("/routing", { model, input: text, input_type: task })).json();
}

function decodeFloats(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 4 }, (_, index) => view.getFloat32(4 * index, true));
}

/** Compute the cosine similarity of two unit vectors. */
export function cosine(a, b) {
  let sum = 0;
  for (let index = 0; index < a.length; index++) sum += a[index] * b[index];
  return sum;
}
