// Searches: the first results of a query, and further ones when they are wanted.

import * as api from "./api.js";
import { describeQuery, imageOf, partsOf } from "./compose.js";
import { $ } from "./dom.js";
import { toRequest } from "./map_area.js";
import * as results from "./results.js";
import { orders, sorted } from "./sorting.js";

const MOST_OFFSET = 10_000; // of the server
const MOST_SORTED = 1000; // the best results, in another order than by score
const MOST_PER_REQUEST = 200;
const AHEAD_PIXELS = 400;

let next = null; // loads further results; null if there are none
let loading = null; // the promise of further results

/** Shows the results of a query. */
export async function search(query) {
  next = null;
  const answer = query.sort === "score" ? await page(query, 0, query.k) : await best(query);
  if (!answer) return;
  const description = describeQuery(query, nameOf);
  const { hits } = answer;
  if (query.sort === "score") {
    next = async () => {
      const more = await page(query, results.count(), query.k, true);
      if (more) show(more.hits, more.hits.length === query.k);
    };
    results.show(answer, description, query.min);
    offer(hits.length === query.k);
    return;
  }
  const all = sorted(hits, query.sort);
  next = async () => show(all.slice(results.count(), results.count() + query.k), results.count() + query.k < all.length);
  const label = orders().find(([value]) => value === query.sort)?.[1] ?? query.sort;
  const note = all.length > query.k ? ` (of the best ${all.length.toLocaleString("en")})` : "";
  results.show({ ...answer, hits: all.slice(0, query.k) }, `${description}, ${label}${note}`, query.min);
  offer(all.length > query.k);
}

/** Offers no further results. */
export function reset() {
  next = null;
  offer(false);
}

/** Loads further results when their button is clicked or scrolls into view. */
export function listen() {
  $("more").addEventListener("click", async () => {
    const first = results.count();
    await more();
    results.focus(first);
  });
  const load = ([entry]) => { if (entry.isIntersecting && scrollY > 0) more(); };
  new IntersectionObserver(load, { rootMargin: `${AHEAD_PIXELS}px` }).observe($("more"));
}

/** Loads further results; while some are loading, waits for those. */
async function more() {
  if (next) loading ??= next().finally(() => { loading = null; });
  await loading;
}

function show(hits, hasMore) {
  results.append(hits);
  offer(hasMore);
}

function offer(hasMore) {
  const reachable = hasMore && results.count() <= MOST_OFFSET;
  if (!reachable) next = null;
  $("more").hidden = !reachable;
}

/** Requests `k` results after `offset`; null if the request failed or was replaced. */
function page(query, offset, k, quiet = false) {
  const { min, within, filters } = query;
  const [parts, image] = [partsOf(query), imageOf(query)];
  if (image instanceof File) {
    return api.request("/api/search/image", api.form({
      image, k, offset, parts: JSON.stringify(parts), filters: JSON.stringify(filters), min_score: min ?? undefined,
      within: within ? JSON.stringify(toRequest(within)) : undefined,
    }), quiet);
  }
  return api.request("/api/search", api.json({
    parts, k, offset, filters, ...(min !== null && { min_score: min }), ...(within && { within: toRequest(within) }),
  }), quiet);
}

/** The best results, up to `MOST_SORTED`. */
async function best(query) {
  const all = { hits: [], ms: 0 };
  while (all.hits.length < MOST_SORTED) {
    const answer = await page(query, all.hits.length, MOST_PER_REQUEST);
    if (!answer) return null;
    all.hits.push(...answer.hits);
    all.ms += answer.ms;
    if (answer.hits.length < MOST_PER_REQUEST) break;
  }
  return all;
}

export const nameOf = (source) => (typeof source === "string" ? source : source.name);
