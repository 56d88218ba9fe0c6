// What the page shows without a query: a sample of the images, and all places on the map.

import * as api from "./api.js";
import { count } from "./dom.js";
import { toRequest } from "./map_area.js";
import * as map from "./map.js";
import * as results from "./results.js";

let shown = null; // the query whose groups are on the map
let refined = ""; // the box whose groups are on the map

/** Shows images and places that meet the conditions of a query. */
export async function show(query) {
  shown = null;
  const answer = await api.request("/api/overview", api.json({ k: query.k, ...conditions(query) }));
  if (!answer) return;
  const { sample, rows, complete, places } = answer;
  const total = `${complete ? "" : "at least "}${count(rows, "image")}`;
  results.browse(sample, !rows ? "No images: the store is empty, or no row matches the filters."
    : sample.length < rows ? `${sample.length} of ${total}` : total);
  [shown, refined] = [query, ""];
  map.showGroups(places);
}

/** Ends the overview. */
export const hide = () => { shown = null; };

/** Loads smaller groups of the visible part of the map. */
export async function refine(box, isGrouped) {
  if (!shown || box === refined || !(isGrouped || refined)) return;
  const query = shown;
  refined = box;
  try {
    const { places } = await api.post("/api/overview", { k: 1, ...conditions(query), view: toRequest(box) });
    if (query === shown && box === refined) map.refineGroups(places);
  } catch {
    refined = ""; // the groups that are shown remain
  }
}

const conditions = ({ filters, within }) => ({ filters, ...(within && { within: toRequest(within) }) });
