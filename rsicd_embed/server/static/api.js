// Requests to the server.

import { $, fail, notify } from "./dom.js";

let running = null;

/** The response as an object; null after a failure, which is shown, and for a request that a newer one replaced. */
export async function request(url, options = {}) {
  stop();
  const mine = (running = new AbortController());
  const started = performance.now();
  $("progress").hidden = false;
  $("error").hidden = true;
  $("status").textContent = "Working …";
  try {
    const response = await fetch(url, { ...options, signal: mine.signal });
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error);
    notify(answer.warnings ?? []);
    return { ...answer, ms: performance.now() - started };
  } catch (error) {
    if (error.name === "AbortError") return null;
    $("status").textContent = "";
    fail(error instanceof TypeError ? "The server does not answer. Is it still running?" : error.message);
    return null;
  } finally {
    if (running === mine) stop();
  }
}

/** Cancels the request in progress, if there is one. */
export function stop() {
  running?.abort();
  running = null;
  $("progress").hidden = true;
}

/** A POST of an object as JSON. */
export const json = (body) => ({
  method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
});

/** A POST of a form; a list gives several fields, and what is undefined none. */
export function form(fields) {
  const body = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    for (const item of Array.isArray(value) ? value : [value]) {
      if (item !== undefined) body.append(name, item);
    }
  }
  return { method: "POST", body };
}

/** A stored image, at most so many pixels wide and high; a chosen file as it is. */
export function imageUrl(source, side) {
  return typeof source === "string"
    ? `/api/pictures?${new URLSearchParams({ id: source, side })}` : URL.createObjectURL(source);
}

/** A stored image's file, unchanged. */
export const originalUrl = (id) => `/api/pictures?${new URLSearchParams({ id, original: true })}`;
