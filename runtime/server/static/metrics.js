// Live metrics, from the server's Prometheus endpoint.

import { fetchMetrics } from "./api.js";
import { byId, element } from "./dom.js";

const REFRESH_SECONDS = 2;
const WINDOW_SECONDS = 60;
// Endpoints that use a model.
const MODEL_ENDPOINTS = /^\/(v1|v2|api|embed|rerank|similarity|tokenize|routing|predict)/;
const LINE = /^(\w+)(?:\{(.*)\})? (\S+)$/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

/** Parse metrics into a map from name to a list of [labels, value]. */
export function parseMetrics(text) {
  const samples = new Map();
  for (const line of text.split("\n")) {
    const match = LINE.exec(line);
    if (!match) continue;
    const labels = Object.fromEntries([...(match[2] ?? "").matchAll(LABEL)].map(([, name, value]) => [name, value]));
    if (!samples.has(match[1])) samples.set(match[1], []);
    samples.get(match[1]).push([labels, Number(match[3])]);
  }
  return samples;
}

function total(samples, name, wanted = () => true) {
  return (samples.get(name) ?? []).reduce((sum, [labels, value]) => sum + (wanted(labels) ? value : 0), 0);
}

const usesModel = ({ endpoint }) => MODEL_ENDPOINTS.test(endpoint);

function snapshot(text) {
  const samples = parseMetrics(text);
  const buckets = new Map();
  for (const [labels, value] of samples.get("moembed_request_seconds_bucket") ?? []) {
    if (usesModel(labels)) buckets.set(labels.le, (buckets.get(labels.le) ?? 0) + value);
  }
  return {
    time: performance.now() / 1000,
    requests: total(samples, "moembed_requests_total", usesModel),
    tokens: total(samples, "moembed_tokens_total"),
    queue: total(samples, "moembed_queue_texts"),
    buckets,
  };
}

/** Compute a quantile of what was added to a histogram, interpolated as in Prometheus; NaN if nothing was added. */
export function quantile(fraction, before, after) {
  const counts = [...after]
    .map(([le, count]) => [le === "+Inf" ? Infinity : Number(le), count - (before.get(le) ?? 0)])
    .sort((a, b) => a[0] - b[0]);
  const all = counts.at(-1)?.[1] ?? 0;
  if (!all) return NaN;
  let [below, lower] = [0, 0];
  for (const [edge, count] of counts) {
    if (count >= fraction * all) {
      if (edge === Infinity) return lower;
      return lower + ((edge - lower) * (fraction * all - below)) / (count - below);
    }
    [below, lower] = [count, edge];
  }
  return NaN;
}

const snapshots = [];

function show() {
  const last = snapshots.at(-1);
  const first = snapshots[0];
  const seconds = last.time - first.time;
  const rate = (name) => (seconds ? (last[name] - first[name]) / seconds : NaN);
  const milliseconds = (fraction) => {
    const recent = quantile(fraction, first.buckets, last.buckets);
    const value = 1000 * (Number.isNaN(recent) ? quantile(fraction, new Map(), last.buckets) : recent);
    return Number.isNaN(value) ? "–" : `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
  };
  const number = (value) => (Number.isNaN(value) ? "–" : value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 1 : 0 }));
  const rows = [
    ["Requests", number(last.requests), "requests"],
    ["Requests per second", number(rate("requests")), "rps"],
    ["Tokens per second", number(rate("tokens")), "tokens"],
    ["Texts in queue", number(last.queue), "queue"],
    ["Median latency", milliseconds(0.5), "p50"],
    ["99th percentile", milliseconds(0.99), "p99"],
  ];
  byId("metrics").replaceChildren(
    ...rows.map(([name, value, id]) => element("div", {}, element("dt", {}, name), element("dd", { id: `metric-${id}` }, value))),
  );
}

/** Refresh the metrics. */
export async function refresh() {
  snapshots.push(snapshot(await fetchMetrics()));
  while (snapshots.length > 2 && snapshots.at(-1).time - snapshots[0].time > WINDOW_SECONDS) snapshots.shift();
  show();
}

/** Refresh the metrics periodically while the page is visible and `enabled()`; calls `onError(error)` on failure. */
export function startRefreshing(enabled, onError) {
  const next = async () => {
    if (enabled() && document.visibilityState === "visible") {
      try {
        await refresh();
      } catch (error) {
        onError(error);
      }
    }
    setTimeout(next, REFRESH_SECONDS * 1000);
  };
  next();
}
