// The search page: three tabs that run the query in the page's address.

import * as api from "./api.js";
import * as chips from "./chips.js";
import { MOST_PARTS, UNREFINED, isRefined, isSearch, partsOf } from "./compose.js";
import { $, count, fail, make, notify } from "./dom.js";
import * as filters from "./filters.js";
import { describe, named } from "./format.js";
import * as labels from "./labels.js";
import * as map from "./map.js";
import * as overview from "./overview.js";
import * as patches from "./patches.js";
import { EMPTY, TABS, filesOf, fromAddress, toAddress } from "./query.js";
import * as results from "./results.js";
import * as searches from "./search.js";
import { nameOf } from "./search.js";
import * as sorting from "./sorting.js";
import { allowOriginals } from "./viewer.js";

const EXAMPLES = ["an airport with planes", "boats in a harbour", "a beach with white waves",
  "green farmland", "a river with a bridge", "dense houses", "snow on mountains", "a desert"];
const MOST_BYTES = 20 * 1024 * 1024;

let query = EMPTY;
let columnsLoaded = null;

// --- the query -------------------------------------------------------------------------------

/** Number of changes that can be undone. */
const depth = () => history.state?.depth ?? 0;

/** Changes the query, adds it to the browser's history, and runs it; repeated steps of one `kind` are one change. */
function change(parts, kind = "") {
  const next = { ...query, ...parts };
  if (partsOf(next).length > MOST_PARTS) return fail(`Expected at most ${MOST_PARTS} texts and examples; remove some of them.`);
  if (toAddress(next) !== toAddress(query) || JSON.stringify(filesOf(next)) !== JSON.stringify(filesOf(query))) {
    const isRepeated = kind !== "" && history.state?.kind === kind;
    const state = { ...filesOf(next), kind, depth: depth() + (isRepeated ? 0 : 1) };
    history[isRepeated ? "replaceState" : "pushState"](state, "", toAddress(next));
  }
  query = next;
  return render();
}

/** Goes back to the query before the last change. */
const undo = () => depth() && history.back();

/** Searches for another text: the examples and texts that refined the previous one are dropped. */
function changeText(text) {
  const isNew = query.text.trim() && query.text.trim() !== text.trim();
  return change({ tab: "words", text, ...(isNew && UNREFINED) });
}

/** Adds a result to the examples to look for (`more`) or to avoid (`less`), and searches again. */
function addExample(role, id) {
  const others = { more: "less", less: "more" };
  const list = query[role].filter((other) => other !== id);
  return change({ [role]: [...list, id], [others[role]]: query[others[role]].filter((other) => other !== id) });
}

/** Shows the query and runs it. */
function render() {
  const finding = query.tab === "find";
  for (const tab of TABS) {
    $(`tab-${tab}`).setAttribute("aria-selected", tab === query.tab);
    $(`tab-${tab}`).tabIndex = tab === query.tab ? 0 : -1;
    $(`panel-${tab}`).hidden = tab !== query.tab;
  }
  $("filters").hidden = finding || !filters.available();
  $("show").hidden = $("results").hidden = finding;
  $("found").hidden = true;
  $("error").hidden = true;
  notify([]);
  $("text").value = query.text;
  $("find-text").value = query.find;
  $("against").value = query.against;
  $("patch").value = query.patch;
  setCount(query.k);
  if (filters.available()) filters.show(query.filters);
  showMinimum(query.min);
  $("sort").value = query.sort;
  map.showArea(query.within);
  preview("picture", query.like);
  preview("find", query.in);
  chips.show(query, depth() > 0);
  $("examples").hidden = isSearch(query);
  $("min-label").hidden = $("sort-label").hidden = !isSearch(query);
  api.stop();
  overview.hide();
  searches.reset();
  if (isSearch(query)) return search();
  if (!finding) return browse();
  results.clear();
  $("map").hidden = true;
  return query.in && query.find.trim() ? find() : null;
}

async function find() {
  const { find: text, in: source, patch } = query;
  const against = query.against.split("\n").map((line) => line.trim()).filter(Boolean);
  const answer = await api.request("/api/find", api.form({
    text, [typeof source === "string" ? "id" : "image"]: source, k: 8, against, patch: patch || undefined,
  }));
  if (answer) patches.show(answer, source);
}

/** Shows the archive, as there is nothing to look for yet. */
async function browse() {
  await overview.show(query);
  if (!isSearch(query) && isRefined(query)) notify(["add a text, an image or an example to look for"]);
}

/** Shows the query's results; other orders than by score need the columns. */
async function search() {
  const current = query;
  if (current.sort !== "score") await columnsLoaded;
  if (current === query) await searches.search(current);
}

// --- display ---------------------------------------------------------------------------------

function setCount(k) {
  const options = [...$("k").options].map(({ value }) => Number(value));
  if (!options.includes(k)) $("k").add(make("option", { textContent: k }), options.findIndex((option) => option > k));
  $("k").value = k;
}

function showMinimum(min) {
  $("min").value = min ?? 0;
  $("min-value").textContent = min === null ? "any" : min.toFixed(2);
}

function preview(tab, source) {
  const area = $(`panel-${tab}`).querySelector(".preview");
  const old = area.querySelector("img");
  if (old?.source === source) return;
  if (old?.src.startsWith("blob:")) URL.revokeObjectURL(old.src);
  area.replaceChildren();
  if (source) area.append(make("img", { source, src: api.imageUrl(source, 320), alt: `Chosen image: ${nameOf(source)}` }));
}

/** Uses a file or a stored id as the image of a tab. */
function choose(tab, source) {
  if (source instanceof File && source.size > MOST_BYTES) {
    return fail("Expected an image of at most 20 MB; make it smaller.");
  }
  change(tab === "picture" ? { tab, like: source, ...UNREFINED } : { tab, in: source, find: "" });
  // The clicked result is gone, so the focus must move.
  return (tab === "picture" ? $("tab-picture") : $("find-text")).focus();
}

// --- events ----------------------------------------------------------------------------------

function listen() {
  filters.listen((list) => change({ filters: list }));
  results.listen({
    like: (id) => choose("picture", id), find: (id) => choose("find", id),
    more: (id) => addExample("more", id), less: (id) => addExample("less", id),
  });
  searches.listen();
  map.listenForArea((within) => change({ within }));
  map.listenForRest(overview.refine);
  $("min").addEventListener("input", () => showMinimum(Number($("min").value) || null));
  $("min").addEventListener("change", () => change({ min: Number($("min").value) || null }, "min"));
  $("sort").addEventListener("change", () => change({ sort: $("sort").value }));
  chips.listen({ change, undo, clear: () => change({ text: "", like: null, filters: [], min: null, within: null, ...UNREFINED }) });
  $("refine").addEventListener("submit", (event) => {
    event.preventDefault();
    const [role, text] = [$("role").value, $("refinement").value.trim()];
    $("refinement").value = "";
    if (text && !query[role].includes(text)) change({ [role]: [...query[role], text] });
  });
  window.addEventListener("popstate", (event) => {
    query = fromAddress(location.search, event.state);
    render();
  });
  $("form-words").addEventListener("submit", (event) => {
    event.preventDefault();
    changeText($("text").value);
  });
  $("form-find").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!query.in) return fail("Choose an image first.");
    return change({ find: $("find-text").value.trim(), against: $("against").value.trim(), patch: $("patch").value });
  });
  $("k").addEventListener("change", () => change({ k: Number($("k").value) }));
  for (const tab of ["picture", "find"]) listenForFiles(tab);
  document.addEventListener("paste", (event) => {
    const file = event.clipboardData.files[0];
    if (file) choose(query.tab === "find" ? "find" : "picture", file);
  });
  TABS.forEach((tab, i) => {
    $(`tab-${tab}`).addEventListener("click", () => change({ tab }));
    $(`tab-${tab}`).addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = TABS[(i + step + TABS.length) % TABS.length];
      change({ tab: next });
      $(`tab-${next}`).focus();
    });
  });
  document.addEventListener("keydown", (event) => {
    if (/INPUT|TEXTAREA|SELECT/.test(event.target.tagName) || $("viewer").open) return;
    const command = event.ctrlKey || event.metaKey;
    if (command && event.key.toLowerCase() === "z") {
      event.preventDefault();
      if (event.shiftKey) history.forward();
      else undo();
    } else if (event.key === "/") {
      event.preventDefault();
      if (query.tab !== "words") change({ tab: "words" });
      $("text").focus();
      $("text").select();
    }
  });
  $("opacity").addEventListener("input", () => { $("heat").style.opacity = $("opacity").value; });
  $("theme").addEventListener("click", () => {
    const dark = document.documentElement.dataset.theme !== "dark";
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    localStorage.setItem("theme", dark ? "dark" : "light");
  });
}

function listenForFiles(tab) {
  const input = $(`file-${tab}`);
  input.addEventListener("change", () => input.files[0] && choose(tab, input.files[0]));
  const area = $(`panel-${tab}`).querySelector(".drop");
  area.addEventListener("dragover", (event) => { event.preventDefault(); area.classList.add("over"); });
  area.addEventListener("dragleave", () => area.classList.remove("over"));
  area.addEventListener("drop", (event) => {
    event.preventDefault();
    area.classList.remove("over");
    if (event.dataTransfer.files[0]) choose(tab, event.dataTransfer.files[0]);
  });
}

// --- the start -------------------------------------------------------------------------------

async function start() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  document.documentElement.dataset.theme = localStorage.getItem("theme") ?? dark;
  listen();
  query = fromAddress(location.search, history.state);
  columnsLoaded = loadColumns();
  render();
  try {
    await columnsLoaded;
  } catch (error) {
    fail(error.message);
  }
}

/** Loads the store's columns, for building filters and formatting attributes. */
async function loadColumns() {
  const response = await fetch("/api/columns");
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  describe(answer);
  labels.setColumns(answer);
  sorting.setColumns(answer);
  $("sort").replaceChildren(...sorting.orders().map(([value, textContent]) => make("option", { value, textContent })));
  $("sort").value = query.sort;
  filters.setColumns(answer.columns);
  filters.show(query.filters);
  $("filters").hidden = query.tab === "find" || !filters.available();
  allowOriginals(answer.originals);
  results.redraw();
  $("map").hidden ||= query.tab === "find";
  $("about").textContent = `${count(answer.rows, "image")}: search by text, by image, or within an image`;
  const classNames = answer.columns.find(({ name, values }) => values?.length > 1 && /label|class|category/i.test(name));
  const examples = classNames ? classNames.values.slice(0, EXAMPLES.length).map((value) => named(classNames.name, value)) : EXAMPLES;
  $("examples").replaceChildren(...examples.map((text) => {
    const example = make("button", { type: "button", textContent: text });
    example.addEventListener("click", () => changeText(text));
    return example;
  }));
}

start();
