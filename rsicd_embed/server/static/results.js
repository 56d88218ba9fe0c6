// The results: one card per hit.

import { imageUrl } from "./api.js";
import { $, button, count, make, thumb } from "./dom.js";
import { summary } from "./format.js";
import * as map from "./map.js";
import * as viewer from "./viewer.js";

let actions = {};
let last = null;

const CONTROLS = ["more", "less", "like", "find", "picture"];

/** Sets the actions of results: `like`, `find`, `more` and `less`, called with an id. */
export function listen(handlers) {
  actions = handlers;
  viewer.listen(actions);
  map.listen((rank, clicked) => {
    mark(rank);
    if (clicked) $("results").children[rank - 1].scrollIntoView({ block: "center", behavior: "smooth" });
  });
  $("results").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const cards = [...$("results").children];
    const at = cards.findIndex((card) => card.contains(document.activeElement));
    if (step && at >= 0) cards[at + step]?.querySelector(".picture").focus();
    const role = { "+": "more", "-": "less" }[event.key];
    if (role && at >= 0 && !event.ctrlKey && !event.metaKey) cards[at].querySelector(`.${role}`).click();
  });
}

export function show(answer, description) {
  last = [answer, description];
  const { hits, ms } = answer;
  $("status").textContent = hits.length
    ? `${count(hits.length, "result")} ${description}, in ${Math.round(ms)} ms`
    : "No results: the store is empty, or no row matches the filters.";
  const restoreFocus = focusedControl();
  $("results").replaceChildren(...hits.map((hit, i) => card(hit, () => viewer.open(hits, i))));
  restoreFocus();
  map.showPlaces(hits);
}

/** Returns a function that focuses the control that has the focus now, in the card of the same rank. */
function focusedControl() {
  const at = [...$("results").children].findIndex((card) => card.contains(document.activeElement));
  if (at < 0) return () => {};
  const name = CONTROLS.find((control) => document.activeElement.classList.contains(control)) ?? "picture";
  return () => {
    const cards = $("results").children;
    const card = cards[Math.min(at, cards.length - 1)];
    (card?.querySelector(`.${name}`) ?? $("undo")).focus({ preventScroll: true });
  };
}

/** Shows the last results again, after the columns were loaded. */
export function redraw() {
  if (last) show(...last);
}

export function clear() {
  last = null;
  $("status").textContent = "";
  $("results").replaceChildren();
  map.showPlaces([]);
}

function card(hit, open) {
  const picture = make("img", { alt: "", loading: "lazy", decoding: "async", src: imageUrl(hit.id, 320) });
  picture.addEventListener("error", () => picture.replaceWith("no image"), { once: true });
  const larger = make("button", { className: "picture", type: "button", title: "Larger view",
    "@aria-label": `Result ${hit.rank}, ${hit.id}: larger view` }, picture);
  larger.addEventListener("click", open);
  const item = make("li", { className: "card" }, larger,
    make("div", { className: "words" },
      make("div", { className: "top" },
        make("span", { className: "score", textContent: hit.score.toFixed(3), title: "Cosine similarity" }),
        make("span", { className: "actions" },
          thumb("more", `More like ${hit.id}`, () => actions.more(hit.id)),
          thumb("less", `Less like ${hit.id}`, () => actions.less(hit.id)))),
      make("div", { className: "name", textContent: hit.id, title: hit.id }),
      make("div", { className: "attributes", textContent: summary(hit) }),
      make("div", { className: "actions" },
        button("like this", `Search for images like ${hit.id}`, () => actions.like(hit.id), "quiet like"),
        button("find in it", `Find something in ${hit.id}`, () => actions.find(hit.id), "quiet find"))));
  item.addEventListener("pointerenter", () => mark(hit.rank));
  item.addEventListener("focusin", () => mark(hit.rank));
  return item;
}

/** Highlights a result and its dot on the map. */
function mark(rank) {
  $("results").querySelectorAll(".card").forEach((card, i) => card.classList.toggle("marked", i + 1 === rank));
  map.mark(rank);
}
