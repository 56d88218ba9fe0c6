// The query, and its representation in the page's address.

import { parse } from "./map_area.js";

export const TABS = ["words", "picture", "find"];
const MOST_HITS = 200;

// `like` and `in` are a row's id or a chosen file; addresses cannot contain files. `like` is the query image;
// `more` and `less` are ids of results that others should or should not resemble, `also` and `not` texts.
export const EMPTY = {
  tab: "words", text: "", also: [], not: [], like: null, more: [], less: [], in: null, find: "", against: "", patch: "",
  k: 24, filters: [], min: null, within: null, sort: "score",
};
export const SORTS = ["score", "newest", "oldest", "west", "north", "nearest"];
const SINGLE = ["tab", "text", "like", "in", "find", "against", "patch", "k", "min", "within", "sort"];
const LISTS = ["also", "not", "more", "less"];
const FILES = new Map();

export function toAddress(query) {
  const parameters = new URLSearchParams();
  for (const name of SINGLE) {
    const value = query[name];
    if (value !== EMPTY[name] && !(value instanceof File)) parameters.set(name, value);
  }
  for (const name of LISTS) query[name].forEach((value) => parameters.append(name, value));
  for (const { column, operator, value } of query.filters) {
    parameters.append("filter", JSON.stringify(value === undefined ? [column, operator] : [column, operator, value]));
  }
  return `${location.pathname}?${parameters}`.replace(/\?$/, "");
}

/** Parses an address; `state` is the `history.state` that names its files. */
export function fromAddress(search, state) {
  const parameters = new URLSearchParams(search);
  const query = { ...EMPTY };
  for (const name of ["text", "like", "in", "find", "against", "patch"]) {
    query[name] = parameters.get(name) || EMPTY[name];
  }
  for (const name of LISTS) query[name] = [...new Set(parameters.getAll(name).filter((value) => value.trim()))];
  if (TABS.includes(parameters.get("tab"))) query.tab = parameters.get("tab");
  const k = Number(parameters.get("k"));
  if (Number.isInteger(k) && k >= 1) query.k = Math.min(k, MOST_HITS);
  const min = Number(parameters.get("min") ?? NaN);
  if (min >= -1 && min <= 1) query.min = min;
  query.within = parse(parameters.get("within") ?? "");
  if (SORTS.includes(parameters.get("sort"))) query.sort = parameters.get("sort");
  query.filters = parameters.getAll("filter").map(filter).filter(Boolean);
  for (const name of ["like", "in"]) query[name] ??= FILES.get(state?.[name]) ?? null;
  return query;
}

/** Keys of a query's files for `history.state`; the files are kept while the page is open. */
export function filesOf(query) {
  const state = {};
  for (const name of ["like", "in"]) {
    if (!(query[name] instanceof File)) continue;
    state[name] = [...FILES].find(([, file]) => file === query[name])?.[0] ?? FILES.size;
    FILES.set(state[name], query[name]);
  }
  return state;
}

function filter(text) {
  try {
    const [column, operator, value] = JSON.parse(text);
    const isText = [column, operator].every((part) => typeof part === "string");
    return isText ? { column, operator, ...(value !== undefined && { value: String(value) }) } : null;
  } catch {
    return null;
  }
}
