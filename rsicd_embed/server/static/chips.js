// The current query as chips: each shows one part and removes it.

import { imageUrl } from "./api.js";
import { $, button, make } from "./dom.js";
import { named } from "./format.js";
import { describe } from "./map_area.js";

let onChange = () => {};

/** Calls `change` with changed parts of the query, `undo` to go back, and `clear` to start again. */
export function listen({ change, undo, clear }) {
  onChange = change;
  $("undo").addEventListener("click", undo);
  $("clear").addEventListener("click", clear);
}

/** Shows the chips of a query, and whether a change can be undone. */
export function show(query, canUndo) {
  const focused = [...$("chips").children].findIndex((item) => item.contains(document.activeElement));
  $("chips").replaceChildren(...chipsOf(query));
  $("query").hidden = query.tab === "find" || !($("chips").children.length || canUndo);
  $("clear").hidden = !$("chips").children.length;
  $("undo").disabled = !canUndo;
  if (focused < 0) return;
  // The focused chip is gone: the focus moves to the one in its place.
  const chips = $("chips").querySelectorAll("button");
  (chips[Math.min(focused, chips.length - 1)] ?? $("text")).focus();
}

function chipsOf(query) {
  const { tab, text, like, also, not, more, less, filters, min, within } = query;
  const without = (name, item) => ({ [name]: query[name].filter((other) => other !== item) });
  const chips = [];
  if (tab === "words" && text.trim()) chips.push(chip(`“${text.trim()}”`, "text", { text: "" }));
  if (tab === "picture" && like) {
    chips.push(chip(typeof like === "string" ? like : like.name, "image", { like: null }, typeof like === "string" ? like : null));
  }
  chips.push(
    ...also.map((item) => chip(`“${item}”`, "text", without("also", item))),
    ...not.map((item) => chip(`“${item}”`, "text to avoid", without("not", item), null, "bad")),
    ...more.map((id) => chip(id, "example of what to look for", without("more", id), id, "good")),
    ...less.map((id) => chip(id, "example of what to avoid", without("less", id), id, "bad")),
    ...filters.map((filter) => chip(nameFilter(filter), "filter", without("filters", filter))),
    ...(within ? [chip(`in ${describe(within)}`, "area", { within: null })] : []),
    ...(min === null ? [] : [chip(`score ≥ ${min.toFixed(2)}`, "minimum", { min: null })]),
  );
  return chips;
}

const nameFilter = ({ column, operator, value }) =>
  `${column} ${operator}${value === undefined ? "" : ` ${named(column, value)}`}`;

/** A chip that makes `parts` the query's when it is clicked; a row's chip shows its picture. */
function chip(text, kind, parts, id = null, className = "") {
  const item = button("", `Remove the ${kind} ${text}`, () => onChange(parts), `chip ${className}`);
  if (id !== null) {
    const picture = make("img", { alt: "", width: 26, height: 26, decoding: "async", src: imageUrl(id, 64) });
    picture.addEventListener("error", () => picture.replaceWith(make("span", { className: "text", textContent: text })), { once: true });
    item.append(picture);
  }
  if (className) item.append(make("span", { className: "sign", textContent: className === "good" ? "+" : "−", "@aria-hidden": "true" }));
  item.append(...(id === null ? [make("span", { className: "text", textContent: text })] : []), make("span", { className: "x", textContent: "✕", "@aria-hidden": "true" }));
  item.title = `Remove the ${kind} ${text}`;
  return make("li", {}, item);
}
