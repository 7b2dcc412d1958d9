// Entry point of the page: its state, its events, and the server calls that they make.

import { abortRequests, ApiError, embed, fetchAbout, fetchRouting, isReady, setApiKey } from "./api.js";
import { byId, element, shortened } from "./dom.js";
import { refresh, startRefreshing } from "./metrics.js";
import { showRouting } from "./routing.js";
import { showHeatMap, showResults } from "./similarity.js";

const MAX_TEXTS = 40;
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

/** Run a task instead of the one in progress, and show its error, if any. */
async function run(task) {
  const signal = abortRequests();
  byId("error").hidden = true;
  document.body.setAttribute("aria-busy", "true");
  try {
    await task();
  } catch (error) {
    if (!signal.aborted) showError(error);
  } finally {
    if (!signal.aborted) document.body.removeAttribute("aria-busy");
  }
}

function showError(error) {
  if (error.status === 401) byId("key-form").hidden = false;
  const parts = [element("p", {}, error instanceof ApiError ? error.message : `Error in this page: ${error.message}`)];
  if (error.retryAfter) parts.push(element("p", {}, `Retry after ${error.retryAfter} s.`));
  if (error.status) parts.push(element("p", { class: "hint" }, `HTTP ${error.status}`));
  byId("error").replaceChildren(...parts);
  byId("error").hidden = false;
  setStatus("");
  if (!(error instanceof ApiError)) console.error(error);
}

function setStatus(text) {
  byId("status").textContent = text;
}

function lines() {
  return byId("texts").value.split("\n").map((line) => line.trim()).filter(Boolean);
}

async function embedTexts() {
  const texts = lines();
  if (!texts.length || texts.length > MAX_TEXTS) {
    setStatus(`There are ${texts.length} texts; enter 1 to ${MAX_TEXTS}, one per line.`);
    return;
  }
  const started = performance.now();
  const { vectors, tokens } = await embed(model(), texts, "document");
  const elapsed = Math.round(performance.now() - started);
  Object.assign(state, { texts, vectors });
  showHeatMap(texts, vectors);
  updateRoutingChoices();
  setStatus(`${texts.length} ${texts.length === 1 ? "text" : "texts"} embedded: ${tokens} tokens in ${elapsed} ms.`);
  await search();
  await showSelectedRouting();
}

async function searchTexts() {
  await search();
  updateRoutingChoices();
  const best = byId("results").firstElementChild;
  if (best) setStatus(`The most similar text is number ${Number(best.dataset.index) + 1}, with similarity ${best.firstChild.textContent}.`);
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

function updateRoutingChoices() {
  const choices = byId("routing-text");
  const before = choices.value;
  const question = byId("question").value.trim();
  const options = state.texts.map((text, index) => element("option", { value: `document ${index}` }, `${index + 1} ${shortened(text, 60)}`));
  if (question) options.push(element("option", { value: "query" }, `Question: ${shortened(question, 60)}`));
  choices.replaceChildren(...options);
  if (options.some((option) => option.value === before)) choices.value = before;
}

async function showSelectedRouting() {
  const [task, index] = byId("routing-text").value.split(" ");
  if (!task || byId("routing-section").hidden) return;
  const text = task === "query" ? byId("question").value.trim() : state.texts[Number(index)];
  showRouting(await fetchRouting(model(), text, task));
}

function showModel() {
  const card = state.models.find(({ id }) => id === model());
  const size = (card.size / 1e6).toFixed(0);
  byId("routing-section").hidden = card.num_experts === 0;
  byId("about").replaceChildren(
    "Model: ",
    element("b", {}, card.id),
    `, ${card.recipe}, ${size} MB. Vectors of ${card.dim} dimensions, texts of up to ${card.max_tokens} tokens. `,
    `Kernels ${card.kernels}, ${card.threads} ${card.threads === 1 ? "thread" : "threads"}.`,
  );
  byId("provenance").classList.toggle("notice", card.built_in || !card.origin);
  byId("provenance").textContent = card.built_in
    ? "This is the small built-in model of the same architecture (made from multilingual-e5-small), " +
      "not the published nomic-embed-text-v2-moe. It is less accurate, especially across languages."
    : card.origin
      ? `Made from ${card.origin}${card.revision ? `, revision ${card.revision.slice(0, 12)}` : ""}.`
      : `Made from a local checkpoint (“${card.name}”): the bundle does not name the origin of its weights.`;
}

async function start() {
  setStatus("Loading the model.");
  while (!(await isReady())) await new Promise((resolve) => setTimeout(resolve, 300));
  const { models, version } = await fetchAbout();
  state.models = models;
  byId("model").replaceChildren(...models.map(({ id }) => element("option", { value: id }, id)));
  byId("model-label").hidden = models.length < 2;
  byId("version").textContent = `moembed ${version}.`;
  byId("key-form").hidden = true;
  showModel();
  await embedTexts();
}

function startMetrics() {
  startRefreshing(
    () => byId("live").checked && state.models.length > 0,
    (error) => {
      byId("live").checked = false;
      showError(error);
    },
  );
}

function addListeners() {
  const on = (id, type, listener) =>
    byId(id).addEventListener(type, (event) => {
      if (type === "submit") event.preventDefault();
      listener(event);
    });
  on("texts-form", "submit", () => run(embedTexts));
  on("texts", "keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run(embedTexts);
  });
  on("search-form", "submit", () => run(searchTexts));
  on("routing-text", "change", () => run(showSelectedRouting));
  on("model", "change", () => {
    showModel();
    run(embedTexts);
  });
  on("key-form", "submit", () => {
    setApiKey(byId("key").value);
    byId("key").value = "";
    run(start);
  });
  on("live", "change", () => byId("live").checked && refresh().catch(showError));
}

byId("max-texts").textContent = String(MAX_TEXTS);
byId("texts").value = EXAMPLES.join("\n");
byId("question").value = QUESTION;
addListeners();
run(start);
startMetrics();
