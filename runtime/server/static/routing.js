// Where the tokens of a text are routed: a grid of tokens by layers, and what each expert got.

import { byId, element, navigable, percent, spoken } from "./dom.js";

// SentencePiece writes a space in front of a word as this; it is shown as a faint dot.
const SPACE = "▁";

/** Draw a reply of POST /routing. */
export function showRouting({ tokens, layers, num_experts: count }) {
  const chosen = layers[0].experts[0].length;
  byId("routing-hint").textContent =
    `In ${layers.length} layers of the model a router sends every token to ${chosen} of ${count} experts. ` +
    "A segment is one of them, as wide as its weight.";
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
    element("tr", {}, piece(token), ...layers.map(({ experts, weights }) => choice(experts[row], weights[row], count))),
  );
  const table = element(
    "table",
    { class: "routes" },
    element("caption", { class: "spoken" }, "Experts that read each token, by layer"),
    element("thead", {}, head),
    element("tbody", {}, ...body),
  );
  navigable(table, (row, column) => {
    const { layer, experts, weights } = layers[column];
    const parts = experts[row].map((expert, rank) => `expert ${expert} with ${weights[row][rank].toFixed(3)}`);
    byId("token").replaceChildren(
      element("b", {}, readable(tokens[row])),
      ` in layer ${layer}: ${parts.join(", ")}. The router gives ${percent(1 - sum(weights[row]))} to the other experts, which do not read it.`,
    );
  });
  byId("token").textContent = "Point at a segment, or move through the tokens with the arrow keys, to read its weights.";
  byId("routing").replaceChildren(table);
}

function piece(token) {
  const header = element("th", { scope: "row", dir: "auto" });
  if (token.startsWith(SPACE)) header.append(element("span", { class: "space", "aria-hidden": "true" }, "·"));
  header.append(readable(token) || spoken("space"));
  return header;
}

function readable(token) {
  return token.replaceAll(SPACE, "");
}

function choice(experts, weights, count) {
  const cell = element("td", { "data-experts": experts.join(), "data-weights": weights.join() });
  const bar = element("span", { class: "segments", "aria-hidden": "true" });
  experts.forEach((expert, rank) => {
    const part = coloured(element("i", {}, weights[rank] >= 0.12 ? String(expert) : ""), expert, count);
    part.style.setProperty("--share", String(weights[rank]));
    bar.append(part);
  });
  cell.append(bar, spoken(experts.map((expert, rank) => `expert ${expert}, ${percent(weights[rank])}`).join("; ")));
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
      const bar = coloured(element("i", { class: "bar-of", "aria-hidden": "true" }), expert, count);
      bar.style.setProperty("--share", String(load[expert] / Math.max(1, ...load)));
      return element("td", { "data-load": load[expert] }, element("span", {}, String(load[expert])), bar);
    });
    return element("tr", {}, element("th", { scope: "row" }, swatch, String(expert)), ...cells);
  });
  const table = element(
    "table",
    { class: "load" },
    element("caption", {}, `How many of the ${tokens} tokens each expert reads`),
    element("thead", {}, head),
    element("tbody", {}, ...body),
  );
  byId("load").replaceChildren(table);
}

function coloured(made, expert, count) {
  made.classList.add("expert");
  made.style.setProperty("--hue", String((360 * expert) / count + 25));
  // Neighbours on the wheel of colours differ in lightness too, for those who see few hues.
  made.style.setProperty("--odd", String(expert % 2));
  return made;
}

function sum(numbers) {
  return numbers.reduce((a, b) => a + b, 0);
}
