// The box on the map: drawn with the pointer, or typed.

import { $, draw, fail } from "./dom.js";

const EXPECTED = "Expected west, south, east, north in degrees, such as -10, 35, 30, 60.";

let onChange = () => {};
let start = null; // the corner where drawing began

/** Calls `change` with a box as "west,south,east,north", or null, when the user draws or types one. */
export function listen(svg, change) {
  onChange = change;
  const setDrawing = (on) => {
    $("draw-box").setAttribute("aria-pressed", on);
    svg.classList.toggle("drawing", on);
    cancel(svg);
  };
  const isDrawing = () => $("draw-box").getAttribute("aria-pressed") === "true";
  $("draw-box").addEventListener("click", () => setDrawing(!isDrawing()));
  svg.addEventListener("pointerdown", (event) => {
    if (!isDrawing() || event.button !== 0) return;
    event.preventDefault();
    svg.setPointerCapture(event.pointerId);
    start = place(svg, event);
  });
  svg.addEventListener("pointermove", (event) => {
    if (!start) return;
    svg.querySelector(".sketch")?.remove();
    svg.append(rectangle(between(start, place(svg, event)), "box sketch"));
  });
  svg.addEventListener("pointerup", (event) => {
    if (!start) return;
    const corners = between(start, place(svg, event));
    setDrawing(false);
    const [west, south, east, north] = corners;
    if (west < east && south < north) onChange(corners.join(","));
  });
  svg.addEventListener("pointercancel", () => cancel(svg));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && isDrawing()) setDrawing(false);
  });
  $("box-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = $("box").value.trim();
    const parsed = text === "" ? null : parse(text);
    if (text !== "" && !parsed) return fail(EXPECTED);
    return onChange(parsed);
  });
}

/** Shows a box in the field, unless the user is changing it. */
export function show(within) {
  if (document.activeElement !== $("box") || within) $("box").value = within?.replaceAll(",", ", ") ?? "";
}

/** Parses "west,south,east,north"; null if it is not a box. A box crosses the antimeridian if west > east. */
export function parse(text) {
  const parts = text.split(",").map((part) => part.trim());
  const numbers = parts.map(Number);
  const [west, south, east, north] = numbers;
  const valid = parts.length === 4 && parts.every((part) => part !== "") && numbers.every(Number.isFinite)
    && Math.abs(west) <= 180 && Math.abs(east) <= 180 && south >= -90 && north <= 90 && south <= north;
  return valid ? numbers.join(",") : null;
}

/** The rectangles of a box: two of them if it crosses the antimeridian. */
export function rectangles(within) {
  if (!within) return [];
  const [west, south, east, north] = within.split(",").map(Number);
  const sides = west <= east ? [[west, east]] : [[west, 180], [-180, east]];
  return sides.map(([left, right]) => rectangle([left, south, right, north], "box"));
}

function cancel(svg) {
  start = null;
  svg.querySelector(".sketch")?.remove();
}

const rectangle = ([west, south, east, north], name) =>
  draw("rect", { class: name, x: west, y: -north, width: east - west, height: north - south });

const between = ([x1, y1], [x2, y2]) => [Math.min(x1, x2), Math.min(y1, y2), Math.max(x1, x2), Math.max(y1, y2)];

/** Longitude and latitude of an event, with as many digits as there are pixels. */
function place(svg, event) {
  const { left, top, width, height } = svg.getBoundingClientRect();
  const [x, y, wide, high] = svg.getAttribute("viewBox").split(" ").map(Number);
  const digits = Math.max(0, Math.ceil(Math.log10(width / wide)));
  const round = (value, most) => Number(Math.max(-most, Math.min(most, value)).toFixed(digits));
  return [round(x + ((event.clientX - left) / width) * wide, 180), round(-(y + ((event.clientY - top) / height) * high), 90)];
}
