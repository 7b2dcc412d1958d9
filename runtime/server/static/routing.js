// Expert routing of a text: a grid of tokens by layers, and the load of each expert.

import { byId, element, makeGrid, percent, visuallyHidden } from "./dom.js";

// SentencePiece marks the space in front of a word with this character; the page shows a faint dot.
const SPACE = "▁";

/** Show a response of POST /routing. */
export function showRouting({ tokens, layers, num_experts: count }) {
  const active = layers[0].experts[0].length;
  byId("routing-hint").textContent =
    `In ${layers.length} layers of the model, a router sends every token to ${active} of ${count} experts. ` +
    "Each segment is one of them; its width is the router's weight.";
  showGrid(tokens, layers, count);
  showLoad(layers, count, tokens.length);
}

function showGrid(tokens, layers, count) {
  const head = element(
    "tr",
    {},
    element("th", { scope: "col" }, "Token"),
    ...layers.map(({ layer }) => element("th", { scope: "col" }, `Layer ${layer}`)),
  );
  const body = tokens.map((token, row) =>
    element("tr", {}, tokenHeader(token), ...layers.map(({ experts, weights }) => expertCell(experts[row], weights[row], count))),
  );
  const table = element(
    "table",
    { class: "routes" },
    element("caption", { class: "visually-hidden" }, "Experts of each token, by layer"),
    element("thead", {}, head),
    element("tbody", {}, ...body),
  );
  makeGrid(table, (row, column) => {
    const { layer, experts, weights } = layers[column];
    const parts = experts[row].map((expert, rank) => `expert ${expert} with weight ${weights[row][rank].toFixed(3)}`);
    byId("token").replaceChildren(
      element("b", {}, withoutMarker(tokens[row])),
      ` in layer ${layer}: ${parts.join(", ")}. The router gives ${percent(1 - sum(weights[row]))} to the other experts, which do not process the token.`,
    );
  });
  byId("token").textContent = "Point at a segment, or use the arrow keys, to see the weights.";
  byId("routing").replaceChildren(table);
}

function tokenHeader(token) {
  const header = element("th", { scope: "row", dir: "auto" });
  if (token.startsWith(SPACE)) header.append(element("span", { class: "space", "aria-hidden": "true" }, "·"));
  header.append(withoutMarker(token) || visuallyHidden("space"));
  return header;
}

function withoutMarker(token) {
  return token.replaceAll(SPACE, "");
}

function expertCell(experts, weights, count) {
  const cell = element("td", { "data-experts": experts.join(), "data-weights": weights.join() });
  const bar = element("span", { class: "segments", "aria-hidden": "true" });
  experts.forEach((expert, rank) => {
    const part = coloured(element("i", {}, weights[rank] >= 0.12 ? String(expert) : ""), expert, count);
    part.style.setProperty("--fraction", String(weights[rank]));
    bar.append(part);
  });
  cell.append(bar, visuallyHidden(experts.map((expert, rank) => `expert ${expert}, ${percent(weights[rank])}`).join("; ")));
  return cell;
}

function showLoad(layers, count, tokens) {
  const head = element(
    "tr",
    {},
    element("th", { scope: "col" }, "Expert"),
    ...layers.map(({ layer }) => element("th", { scope: "col" }, `Layer ${layer}`)),
  );
  const body = Array.from({ length: count }, (_, expert) => {
    const swatch = coloured(element("i", { class: "swatch", "aria-hidden": "true" }), expert, count);
    const cells = layers.map(({ load }) => {
      const bar = coloured(element("i", { class: "data-bar", "aria-hidden": "true" }), expert, count);
      bar.style.setProperty("--fraction", String(load[expert] / Math.max(1, ...load)));
      return element("td", { "data-load": load[expert] }, element("span", {}, String(load[expert])), bar);
    });
    return element("tr", {}, element("th", { scope: "row" }, swatch, String(expert)), ...cells);
  });
  const table = element(
    "table",
    { class: "load" },
    element("caption", {}, `Tokens per expert, of ${tokens} tokens`),
    element("thead", {}, head),
    element("tbody", {}, ...body),
  );
  byId("load").replaceChildren(table);
}

function coloured(node, expert, count) {
  node.classList.add("expert");
  node.style.setProperty("--hue", String((360 * expert) / count + 25));
  // Adjacent hues also differ in lightness, for readers with colour vision deficiency.
  node.style.setProperty("--odd", String(expert % 2));
  return node;
}

function sum(numbers) {
  return numbers.reduce((a, b) => a + b, 0);
}
