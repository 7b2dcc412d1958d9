// The page: what is served, the texts, and who shows what of them.

import { byId, element, shortened } from "./dom.js";
import { keepLooking, look } from "./figures.js";
import { showRouting } from "./routing.js";
import { about, embed, ready, Refused, route, startOver, useKey } from "./server.js";
import { showHeatMap, showResults } from "./similarity.js";

const MOST_TEXTS = 40;
const EXAMPLES = [
  "Bake the bread for forty minutes, until the crust is brown.",
  "The dough has to rise overnight in a cool place.",
  "Das Brot bleibt vierzig Minuten im Ofen.",
  "Take line 4 to the railway station and change there.",
  "Zum Bahnhof nimmt man die Linie 4.",
  "La gare est à dix minutes à pied.",
  "A router sends every token to two of eight experts.",
  "Mixture-of-experts models compute only a part of their weights for a token.",
];
const QUESTION = "How long does bread stay in the oven?";

const state = { models: [], texts: [], vectors: [] };

const model = () => byId("model").value;

/** Do what was asked for last; what the server says against it is shown in its words. */
async function guarded(work) {
  const signal = startOver();
  byId("error").hidden = true;
  document.body.setAttribute("aria-busy", "true");
  try {
    await work();
  } catch (error) {
    if (!signal.aborted) showError(error);
  } finally {
    if (!signal.aborted) document.body.removeAttribute("aria-busy");
  }
}

function showError(error) {
  if (error.status === 401) byId("key-form").hidden = false;
  const parts = [element("p", {}, error instanceof Refused ? error.message : `This page has a defect: ${error.message}`)];
  if (error.retryAfter) parts.push(element("p", {}, `It asks to wait ${error.retryAfter} s before the next try.`));
  if (error.status) parts.push(element("p", { class: "hint" }, `HTTP ${error.status}`));
  byId("error").replaceChildren(...parts);
  byId("error").hidden = false;
  say("");
  if (!(error instanceof Refused)) console.error(error);
}

function say(text) {
  byId("status").textContent = text;
}

function lines() {
  return byId("texts").value.split("\n").map((line) => line.trim()).filter(Boolean);
}

async function embedTexts() {
  const texts = lines();
  if (!texts.length || texts.length > MOST_TEXTS) {
    say(`There are ${texts.length} texts; this page shows 1 to ${MOST_TEXTS}, one per line.`);
    return;
  }
  const started = performance.now();
  const { vectors, tokens } = await embed(model(), texts, "document");
  const spent = Math.round(performance.now() - started);
  Object.assign(state, { texts, vectors });
  showHeatMap(texts, vectors);
  listRouted();
  say(`${texts.length} ${texts.length === 1 ? "text" : "texts"} embedded: ${tokens} tokens in ${spent} ms.`);
  await search();
  await showRouted();
}

async function searchTexts() {
  await search();
  listRouted();
  const best = byId("results").firstElementChild;
  if (best) say(`The most similar text is number ${Number(best.dataset.index) + 1}, with ${best.firstChild.textContent}.`);
}

async function search() {
  const question = byId("question").value.trim();
  if (!question || !state.texts.length) {
    byId("results").replaceChildren();
    return;
  }
  const { vectors } = await embed(model(), [question], "query");
  showResults(state.texts, state.vectors, vectors[0]);
}

function listRouted() {
  const choices = byId("routed");
  const before = choices.value;
  const question = byId("question").value.trim();
  const options = state.texts.map((text, index) => element("option", { value: `document ${index}` }, `${index + 1} ${shortened(text, 60)}`));
  if (question) options.push(element("option", { value: "query" }, `Question: ${shortened(question, 60)}`));
  choices.replaceChildren(...options);
  if (options.some((option) => option.value === before)) choices.value = before;
}

async function showRouted() {
  const [task, index] = byId("routed").value.split(" ");
  if (!task) return;
  const text = task === "query" ? byId("question").value.trim() : state.texts[Number(index)];
  showRouting(await route(model(), text, task));
}

function describe() {
  const card = state.models.find(({ id }) => id === model());
  const size = (card.size / 1e6).toFixed(0);
  byId("about").replaceChildren(
    "Served here: ",
    element("b", {}, card.id),
    `, ${card.recipe}, ${size} MB. Vectors of ${card.dim} dimensions, texts of up to ${card.max_tokens} tokens. `,
    `Kernels ${card.kernels}, ${card.threads} ${card.threads === 1 ? "thread" : "threads"}.`,
  );
  byId("provenance").classList.toggle("notice", card.embedded || !card.origin);
  byId("provenance").textContent = card.embedded
    ? "This is the small model inside the package, a stand-in of the same architecture (made from multilingual-e5-small). " +
      "It is not the published nomic-embed-text-v2-moe, and weaker than it, above all across languages."
    : card.origin
      ? `Made from ${card.origin}${card.revision ? `, revision ${card.revision.slice(0, 12)}` : ""}.`
      : `Made from a local checkpoint (“${card.name}”): the bundle does not say whose weights these are.`;
}

async function start() {
  say("The model is being loaded.");
  while (!(await ready())) await new Promise((resolve) => setTimeout(resolve, 300));
  const { models, version } = await about();
  state.models = models;
  byId("model").replaceChildren(...models.map(({ id }) => element("option", { value: id }, id)));
  byId("model-label").hidden = models.length < 2;
  byId("version").textContent = `moembed ${version}.`;
  byId("key-form").hidden = true;
  describe();
  await embedTexts();
}

function startFigures() {
  keepLooking(
    () => byId("live").checked && state.models.length > 0,
    (error) => {
      byId("live").checked = false;
      showError(error);
    },
  );
}

function listen() {
  const on = (id, event, work) =>
    byId(id).addEventListener(event, (happened) => {
      if (event === "submit") happened.preventDefault();
      work(happened);
    });
  on("texts-form", "submit", () => guarded(embedTexts));
  on("texts", "keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) guarded(embedTexts);
  });
  on("search-form", "submit", () => guarded(searchTexts));
  on("routed", "change", () => guarded(showRouted));
  on("model", "change", () => {
    describe();
    guarded(embedTexts);
  });
  on("key-form", "submit", () => {
    useKey(byId("key").value);
    byId("key").value = "";
    guarded(start);
  });
  on("live", "change", () => byId("live").checked && look().catch(showError));
}

byId("most").textContent = String(MOST_TEXTS);
byId("texts").value = EXAMPLES.join("\n");
byId("question").value = QUESTION;
listen();
guarded(start);
startFigures();
