// Every text against every other, and a question against all of them.

import { byId, element, navigable, shortened, spoken } from "./dom.js";
import { cosine } from "./server.js";

// With more texts than this the numbers of the heat map would not be readable: they are spoken, and read below it.
const MOST_NUMBERS = 16;
const MOST_RESULTS = 12;

/** Draw the heat map of texts and their vectors. */
export function showHeatMap(texts, vectors) {
  const values = vectors.map((a) => vectors.map((b) => cosine(a, b)));
  const pairs = values.flatMap((row, i) => row.slice(0, i).map((value, j) => ({ value, i: j, j: i })));
  const low = Math.min(...pairs.map(({ value }) => value));
  const high = Math.max(...pairs.map(({ value }) => value));
  const numbers = texts.map((_, index) => String(index + 1));

  const dense = texts.length > MOST_NUMBERS;
  const shown = (value) => (dense ? spoken(value.toFixed(2)) : value.toFixed(2));
  const head = element("tr", {}, element("td", {}), ...texts.map((text, i) => columnHeader(numbers[i], text, dense && (i + 1) % 5)));
  const body = texts.map((text, i) =>
    element("tr", {}, rowHeader(numbers[i], text), ...values[i].map((value, j) => cell(shown(value), value, i === j, low, high))),
  );
  const table = element(
    "table",
    { class: "heat" },
    element("caption", { class: "spoken" }, "Cosine similarity of every text with every other"),
    element("thead", {}, head),
    element("tbody", {}, ...body),
  );
  table.classList.toggle("dense", dense);
  const read = (start, i, j) =>
    byId("pair").replaceChildren(
      start,
      element("b", {}, values[i][j].toFixed(4)),
      i === j ? ", a text with itself: " : ": ",
      quoted(texts[i]),
      ...(i === j ? [] : [" and ", quoted(texts[j])]),
    );
  navigable(table, (i, j) => {
    read("", i, j);
    for (const header of table.querySelectorAll("th")) header.classList.remove("lit");
    table.tBodies[0].rows[i].cells[0].classList.add("lit");
    table.tHead.rows[0].cells[j + 1].classList.add("lit");
  });
  const most = pairs.find(({ value }) => value === high);
  if (most) read("Most alike, ", most.i, most.j);
  else byId("pair").replaceChildren();
  byId("heat-map").replaceChildren(table);
  byId("scale").hidden = !most;
  byId("scale-low").textContent = low.toFixed(2);
  byId("scale-high").textContent = high.toFixed(2);
}

function columnHeader(number, text, crowded) {
  return element("th", { scope: "col", title: text }, crowded ? spoken(number) : number, spoken(`: ${shortened(text, 80)}`));
}

function rowHeader(number, text) {
  return element("th", { scope: "row", title: text }, element("span", { class: "number" }, number), " ", text);
}

function cell(shown, value, own, low, high) {
  const made = element("td", { class: own ? "own" : null, "data-value": value }, shown);
  made.style.setProperty("--share", String(high > low ? Math.max(0, (value - low) / (high - low)) : 0.5));
  return made;
}

function quoted(text) {
  return element("q", { dir: "auto" }, shortened(text, 160));
}

/** List the best texts by their similarity to a question's vector, the most similar first. */
export function showResults(texts, vectors, question) {
  const ranked = texts.map((text, index) => ({ text, index, score: cosine(question, vectors[index]) }));
  ranked.sort((a, b) => b.score - a.score || a.index - b.index);
  const low = ranked.at(-1).score;
  const high = ranked[0].score;
  const items = ranked.slice(0, MOST_RESULTS).map(({ text, index, score }) => {
    const bar = element("i", { class: "bar-of", "aria-hidden": "true" });
    bar.style.setProperty("--share", String(high > low ? 0.04 + (0.96 * (score - low)) / (high - low) : 1));
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
