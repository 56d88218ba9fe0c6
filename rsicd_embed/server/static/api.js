// Requests to the server.

import { $, fail, notify } from "./dom.js";

let running = null;

/**
 * Returns the response as an object; null if it failed (the error is shown) or a newer request replaced it. A quiet
 * request leaves the status line as it is.
 */
export async function request(url, options = {}, quiet = false) {
  stop();
  const mine = (running = new AbortController());
  const started = performance.now();
  $("progress").hidden = false;
  $("error").hidden = true;
  if (!quiet) $("status").textContent = "Working …";
  try {
    const response = await fetch(url, { ...options, signal: mine.signal });
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error);
    if (!quiet) notify(answer.warnings ?? []);
    return { ...answer, ms: performance.now() - started };
  } catch (error) {
    if (error.name === "AbortError") return null;
    if (!quiet) $("status").textContent = "";
    fail(error instanceof TypeError ? "The server does not respond. Is it still running?" : error.message);
    return null;
  } finally {
    if (running === mine) stop();
  }
}

/** Cancels the current request. */
export function stop() {
  running?.abort();
  running = null;
  $("progress").hidden = true;
}

/** Posts an object as JSON and returns the response, beside the current request; throws an Error that says why not. */
export async function post(url, body) {
  let response;
  try {
    response = await fetch(url, json(body));
  } catch {
    throw new Error("The server does not respond. Is it still running?");
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

/** Options for a POST of an object as JSON. */
export const json = (body) => ({
  method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
});

/** Options for a POST of a form; lists become repeated fields, and undefined values are left out. */
export function form(fields) {
  const body = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    for (const item of Array.isArray(value) ? value : [value]) {
      if (item !== undefined) body.append(name, item);
    }
  }
  return { method: "POST", body };
}

/** The URL of a chosen file, or of a stored image scaled to fit `side` pixels. */
export function imageUrl(source, side) {
  return typeof source === "string"
    ? `/api/pictures?${new URLSearchParams({ id: source, side })}` : URL.createObjectURL(source);
}

/** The URL of a stored image's original file. */
export const originalUrl = (id) => `/api/pictures?${new URLSearchParams({ id, original: true })}`;
