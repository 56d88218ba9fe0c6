// The results: one card per hit.

import { imageUrl } from "./api.js";
import { $, button, count as counted, make, thumb } from "./dom.js";
import { generated, summary } from "./format.js";
import { labelLine } from "./labels.js";
import * as map from "./map.js";
import * as viewer from "./viewer.js";

const CONTROLS = ["more", "less", "like", "find", "picture"];

let actions = {};
let hits = [];
let describe = () => "";
let marked = null;

/** Sets the actions of results: `like`, `find`, `more` and `less`, called with an id. */
export function listen(handlers) {
  actions = handlers;
  viewer.listen(actions);
  map.listen((index, clicked) => {
    mark(index);
    if (clicked) $("results").children[index]?.scrollIntoView({ block: "center", behavior: "smooth" });
  });
  $("results").addEventListener("keydown", (event) => {
    const card = event.target.closest(".card");
    if (!card || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, input")) return;
    const other = { ArrowRight: card.nextElementSibling, ArrowLeft: card.previousElementSibling }[event.key];
    other?.querySelector(".picture").focus();
    const role = { "+": "more", "-": "less" }[event.key];
    if (role) card.querySelector(`.${role}`)?.click();
  });
}

/** Shows the first hits of a query, described after their number; `min` is its lowest score. */
export function show(answer, description, min = null) {
  const none = min === null ? "No results: the store is empty, or no row matches the filters."
    : "No results: no row that matches the filters has such a score; lower it.";
  describe = () => (hits.length ? `${counted(hits.length, "result")} ${description}, in ${Math.round(answer.ms)} ms` : none);
  const isAbove = $("status").getBoundingClientRect().bottom < 0;
  const restoreFocus = focusedControl(isAbove);
  hits = [];
  $("results").replaceChildren();
  append(answer.hits);
  if (isAbove) $("status").scrollIntoView(); // the best results, not those at the old place
  restoreFocus();
}

/** Shows rows without scores, described by a text. */
export function browse(rows, description) {
  describe = () => description;
  hits = [];
  $("results").replaceChildren();
  append(rows);
}

/** Adds further hits. */
export function append(more) {
  const start = hits.length;
  hits = [...hits, ...more];
  $("results").append(...more.map((hit, i) => card(hit, start + i)));
  $("status").textContent = describe();
  map.showPlaces(hits);
}

/** Shows the hits again, after the columns were loaded. */
export function redraw() {
  $("results").replaceChildren(...hits.map(card));
  if (hits[0]?.score === undefined) map.refresh();
  else map.showPlaces(hits);
}

export function clear() {
  hits = [];
  $("status").textContent = "";
  $("results").replaceChildren();
  map.showPlaces([]);
}

export const count = () => hits.length;

/** Moves the focus to a result. */
export const focus = (index) => $("results").children[index]?.querySelector(".picture").focus();

/** Returns a function that focuses the control that has the focus now, in the first card or at the same place. */
function focusedControl(inFirst) {
  const focused = document.activeElement.closest("#results > .card");
  if (!focused) return () => {};
  const at = inFirst ? 0 : [...$("results").children].indexOf(focused);
  const name = CONTROLS.find((control) => document.activeElement.classList.contains(control)) ?? "picture";
  return () => {
    const cards = $("results").children;
    const card = cards[Math.min(at, cards.length - 1)];
    (card?.querySelector(`.${name}`) ?? $("undo")).focus({ preventScroll: true });
  };
}

function card(hit, index) {
  const picture = make("img", { alt: "", loading: "lazy", decoding: "async", src: imageUrl(hit.id, 320) });
  picture.addEventListener("error", () => picture.replaceWith("no image"), { once: true });
  const larger = make("button", { className: "picture", type: "button", title: "Larger view",
    "@aria-label": `Result ${index + 1}, ${hit.id}: larger view` }, picture);
  larger.addEventListener("click", () => viewer.open(hits, index));
  const isScored = hit.score !== undefined; // else there is no query yet, which needs something to look for
  const item = make("li", { className: "card" }, larger,
    make("div", { className: "words" },
      make("div", { className: "top" },
        ...(isScored ? [make("span", { className: "score", textContent: hit.score.toFixed(3), title: "Cosine similarity" })] : []),
        make("span", { className: "actions" },
          thumb("more", `More like ${hit.id}`, () => actions.more(hit.id)),
          ...(isScored ? [thumb("less", `Less like ${hit.id}`, () => actions.less(hit.id))] : []))),
      make("div", { className: "name", textContent: hit.id, title: hit.id }),
      ...generated(hit).map(([column, text]) => make("div", { className: "caption", title: `Column ${column}` },
        `${text} `, make("span", { className: "generated", textContent: "generated" }))),
      ...[labelLine(hit)].filter(Boolean),
      make("div", { className: "attributes", textContent: summary(hit) }),
      make("div", { className: "actions" },
        button("like this", `Search for images like ${hit.id}`, () => actions.like(hit.id), "quiet like"),
        button("find in it", `Find something in ${hit.id}`, () => actions.find(hit.id), "quiet find"))));
  item.addEventListener("pointerenter", () => mark(index));
  item.addEventListener("focusin", () => mark(index));
  return item;
}

/** Highlights a result and its dot on the map. */
function mark(index) {
  marked?.classList.remove("marked");
  marked = $("results").children[index] ?? null;
  marked?.classList.add("marked");
  map.mark(index);
}
