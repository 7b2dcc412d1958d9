// Live figures, from the server's text for Prometheus.

import { byId, element } from "./dom.js";
import { metrics } from "./server.js";

const SECONDS = 2;
const WINDOW = 60;
const WORK = /^\/(v1|v2|api|embed|rerank|similarity|tokenize|routing|predict)/;
const LINE = /^(\w+)(?:\{(.*)\})? (\S+)$/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

/** Samples of an exposition: name -> list of [labels, value]. */
export function parsed(text) {
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

const ofWork = ({ endpoint }) => WORK.test(endpoint);

function taken(text) {
  const samples = parsed(text);
  const buckets = new Map();
  for (const [labels, value] of samples.get("moembed_request_seconds_bucket") ?? []) {
    if (ofWork(labels)) buckets.set(labels.le, (buckets.get(labels.le) ?? 0) + value);
  }
  return {
    time: performance.now() / 1000,
    requests: total(samples, "moembed_requests_total", ofWork),
    tokens: total(samples, "moembed_tokens_total"),
    queue: total(samples, "moembed_queue_texts"),
    buckets,
  };
}

/** A quantile in seconds of what was added to a histogram, as Prometheus interpolates it; NaN if nothing was. */
export function quantile(share, before, after) {
  const counts = [...after]
    .map(([le, count]) => [le === "+Inf" ? Infinity : Number(le), count - (before.get(le) ?? 0)])
    .sort((a, b) => a[0] - b[0]);
  const all = counts.at(-1)?.[1] ?? 0;
  if (!all) return NaN;
  let [below, lower] = [0, 0];
  for (const [edge, count] of counts) {
    if (count >= share * all) {
      if (edge === Infinity) return lower;
      return lower + ((edge - lower) * (share * all - below)) / (count - below);
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
  const milliseconds = (share) => {
    const lately = quantile(share, first.buckets, last.buckets);
    const value = 1000 * (Number.isNaN(lately) ? quantile(share, new Map(), last.buckets) : lately);
    return Number.isNaN(value) ? "–" : `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
  };
  const number = (value) => (Number.isNaN(value) ? "–" : value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 1 : 0 }));
  const rows = [
    ["Requests", number(last.requests), "requests"],
    ["Requests a second", number(rate("requests")), "rps"],
    ["Tokens a second", number(rate("tokens")), "tokens"],
    ["Texts waiting", number(last.queue), "queue"],
    ["Median latency", milliseconds(0.5), "p50"],
    ["99th percentile", milliseconds(0.99), "p99"],
  ];
  byId("figures").replaceChildren(
    ...rows.map(([name, value, id]) => element("div", {}, element("dt", {}, name), element("dd", { id: `figure-${id}` }, value))),
  );
}

/** Look at the figures now. */
export async function look() {
  snapshots.push(taken(await metrics()));
  while (snapshots.length > 2 && snapshots.at(-1).time - snapshots[0].time > WINDOW) snapshots.shift();
  show();
}

/** Keep looking while the page is seen and `wanted()`; `failed(error)` is told what goes wrong. */
export function keepLooking(wanted, failed) {
  const next = async () => {
    if (wanted() && document.visibilityState === "visible") {
      try {
        await look();
      } catch (error) {
        failed(error);
      }
    }
    setTimeout(next, SECONDS * 1000);
  };
  next();
}
