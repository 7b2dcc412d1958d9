// Heat map of pairwise similarities, and search results.

import { cosine } from "./api.js";
import { byId, element, makeGrid, shortened, visuallyHidden } from "./dom.js";

// With more texts, numbers in the heat map would be unreadable: they are for screen readers, and appear below the map.
const MAX_NUMBERS = 16;
const MAX_RESULTS = 12;

/** Draw the heat map of texts and their vectors. */
export function showHeatMap(texts, vectors) {
  const values = vectors.map((a) => vectors.map((b) => cosine(a, b)));
  const pairs = values.flatMap((row, i) => row.slice(0, i).map((value, j) => ({ value, i: j, j: i })));
  const low = Math.min(...pairs.map(({ value }) => value));
  const high = Math.max(...pairs.map(({ value }) => value));
  const numbers = texts.map((_, index) => String(index + 1));

  const dense = texts.length > MAX_NUMBERS;
  const shown = (value) => (dense ? visuallyHidden(value.toFixed(2)) : value.toFixed(2));
  const head = element("tr", {}, element("td", {}), ...texts.map((text, i) => columnHeader(numbers[i], text, dense && (i + 1) % 5)));
  const body = texts.map((text, i) =>
    element("tr", {}, rowHeader(numbers[i], text), ...values[i].map((value, j) => cell(shown(value), value, i === j, low, high))),
  );
  const table = element(
    "table",
    { class: "heat" },
    element("caption", { class: "visually-hidden" }, "Cosine similarity of all pairs of texts"),
    element("thead", {}, head),
    element("tbody", {}, ...body),
  );
  table.classList.toggle("dense", dense);
  const describePair = (prefix, i, j) =>
    byId("pair").replaceChildren(
      prefix,
      element("b", {}, values[i][j].toFixed(4)),
      i === j ? ", a text with itself: " : ": ",
      quoted(texts[i]),
      ...(i === j ? [] : [" and ", quoted(texts[j])]),
    );
  makeGrid(table, (i, j) => {
    describePair("", i, j);
    for (const header of table.querySelectorAll("th")) header.classList.remove("highlight");
    table.tBodies[0].rows[i].cells[0].classList.add("highlight");
    table.tHead.rows[0].cells[j + 1].classList.add("highlight");
  });
  const most = pairs.find(({ value }) => value === high);
  if (most) describePair("Most similar pair, ", most.i, most.j);
  else byId("pair").replaceChildren();
  byId("heat-map").replaceChildren(table);
  byId("scale").hidden = !most;
  byId("scale-low").textContent = low.toFixed(2);
  byId("scale-high").textContent = high.toFixed(2);
}

function columnHeader(number, text, crowded) {
  return element("th", { scope: "col", title: text }, crowded ? visuallyHidden(number) : number, visuallyHidden(`: ${shortened(text, 80)}`));
}

function rowHeader(number, text) {
  return element("th", { scope: "row", title: text }, element("span", { class: "number" }, number), " ", text);
}

function cell(shown, value, diagonal, low, high) {
  const created = element("td", { class: diagonal ? "diagonal" : null, "data-value": value }, shown);
  created.style.setProperty("--fraction", String(high > low ? Math.max(0, (value - low) / (high - low)) : 0.5));
  return created;
}

function quoted(text) {
  return element("q", { dir: "auto" }, shortened(text, 160));
}

/** List the texts that are most similar to a question, in descending order. */
export function showResults(texts, vectors, question) {
  const ranked = texts.map((text, index) => ({ text, index, score: cosine(question, vectors[index]) }));
  ranked.sort((a, b) => b.score - a.score || a.index - b.index);
  const low = ranked.at(-1).score;
  const high = ranked[0].score;
  const items = ranked.slice(0, MAX_RESULTS).map(({ text, index, score }) => {
    const bar = element("i", { class: "data-bar", "aria-hidden": "true" });
    bar.style.setProperty("--fraction", String(high > low ? 0.04 + (0.96 * (score - low)) / (high - low) : 1));
    return element(
      "li",
      { "data-index": index, "data-score": score },
      element("span", { class: "score" }, score.toFixed(3)),
      element("span", { class: "found", dir: "auto" }, text),
      bar,
    );
  });
  byId("results").replaceChildren(...items);
}
