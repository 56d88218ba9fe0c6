// The map of hits: coastlines (Natural Earth), a grid, a dot for each hit with coordinates, and a box that limits them.

import { $, count, draw } from "./dom.js";
import { hasPlaces, placeOf } from "./format.js";
import * as box from "./map_box.js";

const ASPECT = 2.5; // width / height, as in app.css
const STEPS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60];
const GRID_PIXELS = 90;
const MOST_DOTS = 1000;

let zoomed = false;
let placed = [];
let groups = []; // of rows at about one place, without a query
let within = null;
let marked = null;
let onPick = () => {};
let onBox = () => {};

/** Calls `pick` with a dot's index, and whether it was clicked, when the pointer is on it. */
export function listen(pick) {
  onPick = pick;
  $("zoom").addEventListener("click", () => { zoomed = !zoomed; drawMap(); });
  for (const [event, clicked] of [["pointerover", false], ["click", true]]) {
    svg().addEventListener(event, ({ target }) => target.matches(".hit") && onPick(Number(target.dataset.index), clicked));
  }
  svg().addEventListener("click", ({ target }) => {
    if (target.matches(".group")) onBox(groups[target.dataset.index].box.join(","));
  });
  new ResizeObserver(drawMap).observe($("map"));
}

/** Calls `change` with the box that the user draws or types, as "west,south,east,north", or null. */
export function listenForBox(change) {
  onBox = change;
  box.listen(svg(), change);
}

const svg = () => $("map").querySelector("svg");

/** Shows the box of the query. */
export function showBox(text) {
  within = text;
  box.show(text);
  drawMap();
}

/** Shows the hits that have coordinates, the first of them as dots. */
export function showPlaces(hits) {
  const all = hits.map((hit, index) => ({ ...placeOf(hit), index, id: hit.id })).filter(({ lon }) => lon !== undefined);
  placed = all.slice(0, MOST_DOTS);
  groups = [];
  $("map-count").textContent = all.length > placed.length ? `(the first ${count(placed.length, "result")})`
    : all.length < hits.length ? `(${all.length} of ${hits.length} results have coordinates)` : "";
  refresh();
}

/** Shows groups of rows, each with a mean place, a count and a box, instead of hits. */
export function showGroups(list) {
  groups = list;
  placed = [];
  $("map-count").textContent = "";
  refresh();
}

/** Shows the map again, if rows have coordinates. */
export function refresh() {
  $("map").hidden = !hasPlaces();
  drawMap();
}

export function mark(index) {
  marked?.classList.remove("marked");
  marked = svg().querySelector(`.hit[data-index="${index}"]`);
  marked?.classList.add("marked");
}

/** Left, top, width and height of the visible area, in degrees; the y axis points south. */
function view() {
  const shown = groups.length ? groups : placed;
  const world = shown.some(({ lat }) => lat < -60 || lat > 84) ? fit(0, 0, 360, 180) : fit(0, -12, 360, 144);
  if (!zoomed || !shown.length) return world;
  const [xs, ys] = [shown.map(({ lon }) => lon), shown.map(({ lat }) => -lat)];
  const [left, top] = [Math.min(...xs), Math.min(...ys)];
  const [wide, high] = [Math.max(...xs) - left, Math.max(...ys) - top];
  const near = fit(left + wide / 2, top + high / 2, Math.max(1.2 * wide, 0.02), 1.2 * high);
  return near[2] < world[2] ? near : world;
}

function fit(x, y, wide, high) {
  const width = Math.max(wide, high * ASPECT);
  return [x - width / 2, y - width / ASPECT / 2, width, width / ASPECT];
}

function drawMap() {
  const pixels = svg().clientWidth;
  if (!hasPlaces() || !pixels) return;
  const [left, top, width, height] = view();
  const unit = width / pixels; // degrees per pixel
  const step = STEPS.find((degrees) => degrees >= GRID_PIXELS * unit) ?? 60;
  const digits = Math.max(0, Math.ceil(-Math.log10(step)));
  svg().setAttribute("viewBox", `${left} ${top} ${width} ${height}`);
  const parts = [draw("use", { href: "/static/land.svg#land", class: "land", transform: "scale(0.05)" })];
  const label = (x, y, text) => draw("text", { x, y, "font-size": 11 * unit }, text);
  const name = (value, positive, negative) => `${Math.abs(value).toFixed(digits)}°${Math.abs(value) < step / 2 ? "" : value < 0 ? negative : positive}`;
  for (let i = Math.ceil(left / step + 0.01); i * step < left + width - unit; i++) {
    parts.push(draw("path", { class: "grid", d: `M${i * step} ${top}v${height}` }));
    parts.push(label(i * step + 4 * unit, top + height - 5 * unit, name(i * step, "E", "W")));
  }
  for (let i = Math.ceil(top / step + 0.01); i * step < top + height - unit; i++) {
    parts.push(draw("path", { class: "grid", d: `M${left} ${i * step}h${width}` }));
    if (i * step > top + 16 * unit && i * step < top + height - 20 * unit) parts.push(label(left + 5 * unit, i * step - 4 * unit, name(-i * step, "N", "S")));
  }
  parts.push(...box.rectangles(within));
  // The first hit is drawn last, above the others.
  for (const { lon, lat, index, id } of [...placed].reverse()) {
    parts.push(draw("circle", { class: "hit", cx: lon, cy: -lat, r: 6 * unit, "data-index": index }, draw("title", {}, `${index + 1}. ${id}`)));
  }
  groups.forEach(({ lon, lat, count: n }, index) => {
    const r = Math.min(9, 2.5 + Math.log2(n)) * unit * Math.min(1, pixels / 700);
    parts.push(draw("circle", { class: "group", cx: lon, cy: -lat, r, "data-index": index }, draw("title", {}, `${count(n, "image")}: limit to this place`)));
  });
  svg().replaceChildren(...parts);
  $("zoom").hidden = !placed.length && !groups.length;
  $("zoom").textContent = zoomed ? "Show the whole Earth" : groups.length ? "Zoom to the images" : "Zoom to the results";
  $("zoom").setAttribute("aria-pressed", zoomed);
}
