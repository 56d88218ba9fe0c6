// What the page shows without a query: a sample of the images, and all places on the map.

import * as api from "./api.js";
import { count } from "./dom.js";
import * as map from "./map.js";
import * as results from "./results.js";

/** Shows images and places that meet the conditions of a query. */
export async function show({ k, filters, within }) {
  const body = { k, filters, ...(within && { within: within.split(",").map(Number) }) };
  const answer = await api.request("/api/overview", api.json(body));
  if (!answer) return;
  const { sample, rows, complete, places } = answer;
  const total = `${complete ? "" : "at least "}${count(rows, "image")}`;
  results.browse(sample, !rows ? "No images: the store is empty, or no row matches the filters."
    : sample.length < rows ? `${sample.length} of ${total}` : total);
  map.showGroups(places);
}
