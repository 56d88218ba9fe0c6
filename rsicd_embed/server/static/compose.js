// The parts of a query: what the server searches for, and how the status line names it.

import { count } from "./dom.js";
import { EMPTY } from "./query.js";

export const MOST_PARTS = 64;
// As `search --not` and `--unlike`; the server divides the weight among all parts to avoid.
const AVOIDED = -0.5;
const LESS = -0.25;
// All wanted examples together (scripts/bench_feedback.py).
const MORE = 1;

/** The refinements of a query without any. */
export const UNREFINED = { also: EMPTY.also, not: EMPTY.not, more: EMPTY.more, less: EMPTY.less };

/** The query image: a row's id or a file; null on the other tabs. */
export const imageOf = ({ tab, like }) => (tab === "picture" ? like : null);
const textOf = ({ tab, text }) => (tab === "words" ? text.trim() : "");

/** Whether there is something to look for, rather than only something to avoid. */
export const isSearch = (query) => Boolean(query.tab !== "find"
  && (textOf(query) || imageOf(query) || query.also.length || query.more.length));

/** Whether there are parts besides the main text or image. */
export const isRefined = (query) => Object.keys(UNREFINED).some((name) => query[name].length);

/** The parts for the server, without a chosen file. */
export function partsOf(query) {
  const { also, not, more, less } = query;
  const [text, image] = [textOf(query), imageOf(query)];
  return [
    ...(text ? [{ text }] : []),
    ...(typeof image === "string" ? [{ id: image }] : []),
    ...also.map((text) => ({ text })),
    ...more.map((id) => ({ id, weight: MORE / more.length })),
    ...not.map((text) => ({ text, weight: AVOIDED })),
    ...less.map((id) => ({ id, weight: LESS })),
  ];
}

/** "for “a harbour”, not “ice”, with 2 examples", after the number of results. */
export function describeQuery(query, nameOf) {
  const { also, not, more, less } = query;
  const [text, image] = [textOf(query), imageOf(query)];
  const quoted = (list, word) => list.map((item) => `${word} “${item}”`);
  const main = [...(text ? [`“${text}”`] : []), ...also.map((item) => `“${item}”`)].join(" and ");
  return [
    ...(main ? [`for ${main}`] : []),
    ...(image ? [`like ${nameOf(image)}`] : []),
    ...quoted(not, "not"),
    ...(more.length ? [`like ${count(more.length, "example")}`] : []),
    ...(less.length ? [`unlike ${count(less.length, "example")}`] : []),
  ].join(", ");
}
