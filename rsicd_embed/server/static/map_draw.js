// Drawing an area on the map: a box by dragging or by two corners, a polygon corner by corner, or a typed area.

import { $, fail } from "./dom.js";
import { cornersOf, parse } from "./map_area.js";
import { wrapped } from "./map_view.js";

const EXPECTED = "Expected west, south, east, north in degrees, such as -10, 35, 30, 60, or the corners of a polygon.";
const CLOSING_PIXELS = 12; // a corner this close to the first one closes a polygon
const TOOLS = { box: "draw-box", polygon: "draw-polygon" };

let view = null;
let onChange = () => {};
let onSketch = () => {};
let tool = null; // "box" or "polygon" while drawing
let corners = [];

/** Calls `change` with an area, or null, that the user draws or types, and `sketched` when the sketch changes. */
export function listen(map, { change, sketched }) {
  view = map;
  onChange = change;
  onSketch = sketched;
  for (const [name, id] of Object.entries(TOOLS)) {
    $(id).addEventListener("click", () => use(tool === name ? null : name));
  }
  $("close-polygon").addEventListener("click", finish);
  $("limit-to-view").addEventListener("click", () => onChange(view.box));
  document.addEventListener("keydown", (event) => {
    if (!tool) return;
    if (event.key === "Escape") use(null);
    else if (event.key === "Backspace" && event.target === $("map-canvas")) sketch(corners.slice(0, -1));
  });
  $("area-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = $("area").value.trim();
    const area = text === "" ? null : parse(text);
    if (text !== "" && !area) return fail(EXPECTED);
    return onChange(area);
  });
}

/** Shows an area in the field, unless the user is changing it. */
export function show(area) {
  if (document.activeElement !== $("area") || area) $("area").value = area?.replaceAll(",", ", ") ?? "";
}

/** Whether drags draw instead of moving the map. */
export const isDragged = () => tool === "box";
export const isActive = () => tool !== null;

/** The sketch, as an area to paint; null if there is none. */
export const sketched = () => {
  if (!corners.length) return null;
  return tool === "box" && corners.length === 2 ? { ring: cornersOf(boxOf(corners)) }
    : { ring: corners, open: true, corners: true };
};

/** A drag from a pixel to another, while it lasts. */
export const drag = (start, end) => sketch([start, end].map((pixel) => view.toPlace(pixel)));

/** The end of a drag. */
export function drop(start, end) {
  drag(start, end);
  finish();
}

/** A corner at a pixel. */
export function tap([x, y]) {
  const [first] = corners.length ? corners : [[0, 0]];
  const isClosing = corners.some((corner) => view.turns(corner[0]).some((turn) => {
    const [px, py] = view.toPixel([corner[0] + turn, corner[1]]);
    return Math.hypot(px - x, py - y) < CLOSING_PIXELS && (corner === first || corner === corners.at(-1));
  }));
  if (tool === "polygon" && isClosing) return corners.length > 2 ? finish() : null;
  const [lon, lat] = view.toPlace([x, y]);
  // The map may have turned meanwhile.
  const turn = corners.length ? 360 * Math.round((corners.at(-1)[0] - lon) / 360) : 0;
  sketch([...corners, [lon + turn, lat]]);
  return tool === "box" && corners.length === 2 ? finish() : null;
}

function use(name) {
  tool = name;
  for (const [other, id] of Object.entries(TOOLS)) $(id).setAttribute("aria-pressed", other === name);
  $("map-canvas").classList.toggle("drawing", name !== null);
  $("draw-help").textContent = { box: "Drag a box, or choose two opposite corners. Escape ends drawing.",
    polygon: "Choose the corners, then the first one again. Backspace removes the last one, Escape ends drawing." }[name] ?? "";
  sketch([]);
}

function sketch(list) {
  corners = list;
  $("close-polygon").hidden = tool !== "polygon" || corners.length < 3;
  onSketch();
}

/** Ends drawing, with the sketch as the area, unless it is empty. */
function finish() {
  const area = parse(tool === "box" ? boxOf(corners) : polygonOf(corners));
  const [[west, south], , [east, north]] = cornersOf(area ?? "0,0,0,0");
  const isEmpty = tool === "box" && (west === east || south === north);
  use(null);
  if (area && !isEmpty) onChange(area);
}

const rounded = (value) => Number(value.toFixed(view.digits));
const latitude = (value) => rounded(Math.max(-90, Math.min(90, value)));

function boxOf([[x1, y1], [x2, y2]]) {
  const [west, east] = [Math.min(x1, x2), Math.max(x1, x2)];
  const sides = east - west >= 360 ? [-180, 180] : [rounded(wrapped(west)), rounded(wrapped(east))];
  return [sides[0], latitude(Math.min(y1, y2)), sides[1], latitude(Math.max(y1, y2))].join(",");
}

const polygonOf = (places) => {
  const turn = 360 * Math.round(places[0][0] / 360);
  return places.map(([lon, lat]) => [rounded(lon - turn), latitude(lat)]).join(",");
};
