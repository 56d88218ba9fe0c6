// Paints the map on a canvas: land, a grid, areas, groups, footprints and hits.

import { wrapped } from "./map_view.js";

const STEPS = [1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60];
const GRID_PIXELS = 90;
const SCALE_BAR_PIXELS = 110;
const UNITS_PER_DEGREE = 20; // of land.svg
const VISIBLE_PIXELS = 7; // smaller footprints are dots
const [HIT, CHOSEN] = ["#e0562b", "#ffd23f"];

let land = null;

/** Loads the outline of the land (Natural Earth), then calls `loaded`. */
export async function loadLand(loaded) {
  const svg = await (await fetch("/static/land.svg")).text();
  land = new Path2D(/ d="([^"]*)"/.exec(svg)[1]);
  loaded();
}

/** Radius of the dot of a hit, or of a group of `count` rows, in pixels. */
export const radiusOf = (view, count = null) =>
  (count === null ? 6 : Math.min(9, 2.5 + Math.log2(count)) * Math.max(0.6, Math.min(1, view.width / 700)));

/** Whether footprints of this box are large enough to see. */
export const isVisible = (view, [west, south, east, north]) =>
  Math.max((east - west) * view.stretch, north - south) * view.scale >= VISIBLE_PIXELS;

/**
 * Paints everything; the canvas has `ratio` pixels per CSS pixel.
 *
 * `hits` are painted from last to first. `areas` are rings, of which a sketch may be an open line.
 */
export function paint(canvas, view, ratio, { hits, groups, areas, marked, cross }) {
  const context = canvas.getContext("2d");
  const style = getComputedStyle(canvas);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, view.width, view.height);
  context.lineJoin = "round";
  paintLand(context, view, ratio, colour("land"));
  paintGrid(context, view, colour("pale"), style.fontFamily);
  for (const area of areas) paintArea(context, view, area, colour("accent"));
  for (const group of groups) {
    for (const turn of view.turns(group.lon)) {
      dot(context, view.toPixel([group.lon + turn, group.lat]), radiusOf(view, group.count), HIT, 0.75);
    }
  }
  for (let i = hits.length - 1; i >= 0; i--) if (i !== marked) paintHit(context, view, hits[i], groups.length > 0, false);
  if (hits[marked]) paintHit(context, view, hits[marked], false, true);
  if (view.isLocal) paintScale(context, view, colour("ink"), style.fontFamily);
  if (cross) paintCross(context, view, colour("ink"));
}

function paintLand(context, view, ratio, fill) {
  if (!land) return;
  context.fillStyle = fill;
  for (const turn of view.turns(-180, 180)) {
    const [x, y] = view.toPixel([turn, 0]);
    const unit = (view.scale / UNITS_PER_DEGREE) * ratio;
    context.setTransform(unit * view.stretch, 0, 0, unit, x * ratio, y * ratio);
    context.fill(land, "evenodd");
  }
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
}

function paintGrid(context, view, ink, font) {
  const [west, south, east, north] = view.bounds;
  const name = (value, digits, positive, negative) =>
    `${Math.abs(value).toFixed(digits)}°${Number(Math.abs(value).toFixed(digits)) === 0 || Math.abs(value) === 180 ? "" : value < 0 ? negative : positive}`;
  const lines = (low, high, unit) => {
    const step = STEPS.find((degrees) => degrees * unit >= GRID_PIXELS) ?? 60;
    const digits = Math.max(0, Math.ceil(-Math.log10(step)));
    const first = Math.ceil(low / step);
    return { digits, values: Array.from({ length: Math.max(0, Math.floor(high / step) - first + 1) }, (_, i) => (first + i) * step) };
  };
  context.strokeStyle = context.fillStyle = ink;
  context.lineWidth = 1;
  context.font = `11px ${font}`;
  const columns = lines(west, east, view.scale * view.stretch);
  const rows = lines(Math.max(-90, south), Math.min(90, north), view.scale);
  const [top, bottom] = [view.toPixel([0, Math.min(90, north)])[1], view.toPixel([0, Math.max(-90, south)])[1]];
  context.globalAlpha = 0.25;
  context.beginPath();
  for (const lon of columns.values) {
    const [x] = view.toPixel([lon, 0]);
    context.moveTo(x, top);
    context.lineTo(x, bottom);
  }
  for (const lat of rows.values) {
    const [, y] = view.toPixel([0, lat]);
    context.moveTo(0, y);
    context.lineTo(view.width, y);
  }
  context.stroke();
  context.globalAlpha = 1;
  for (const lon of columns.values) {
    const [x] = view.toPixel([lon, 0]);
    if (x < view.width - 40) context.fillText(name(wrapped(lon), columns.digits, "E", "W"), x + 4, view.height - 6);
  }
  for (const lat of rows.values) {
    const [, y] = view.toPixel([0, lat]);
    if (y > 16 && y < view.height - 20) context.fillText(name(lat, rows.digits, "N", "S"), 5, y - 4);
  }
}

/** Traces rings for each turn that is in view. */
function trace(context, view, rings, closed = true) {
  context.beginPath();
  for (const ring of rings) {
    const lons = ring.map(([lon]) => lon);
    for (const turn of view.turns(Math.min(...lons), Math.max(...lons))) {
      ring.forEach(([lon, lat], i) => context[i ? "lineTo" : "moveTo"](...view.toPixel([lon + turn, lat])));
      if (closed) context.closePath();
    }
  }
}

function paintArea(context, view, { ring, open = false, corners = false }, colour) {
  trace(context, view, [ring], !open);
  context.fillStyle = context.strokeStyle = colour;
  context.globalAlpha = 0.12;
  context.fill();
  context.globalAlpha = 1;
  context.lineWidth = 2;
  context.stroke();
  if (!corners) return;
  for (const [lon, lat] of ring) {
    for (const turn of view.turns(lon)) dot(context, view.toPixel([lon + turn, lat]), 4, colour);
  }
}

function paintHit(context, view, { lon, lat, rings, box }, isFaint, isMarked) {
  if (rings.length && isVisible(view, box)) {
    trace(context, view, rings);
    context.fillStyle = isMarked ? CHOSEN : HIT;
    context.globalAlpha = isMarked ? 0.45 : isFaint ? 0.08 : 0.25;
    context.fill("evenodd");
    context.globalAlpha = 1;
    context.lineWidth = isMarked ? 3 : 1.5;
    context.strokeStyle = isMarked ? "#000" : HIT;
    context.stroke();
    if (!isMarked) return;
    context.lineWidth = 1.5;
    context.strokeStyle = CHOSEN;
    context.stroke();
  } else if (!isFaint) {
    for (const turn of view.turns(lon)) {
      const pixel = view.toPixel([lon + turn, lat]);
      dot(context, pixel, radiusOf(view), isMarked ? CHOSEN : HIT, 1, isMarked ? "#000" : "#fff");
    }
  }
}

function dot(context, [x, y], radius, fill, alpha = 1, stroke = null) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fillStyle = fill;
  context.globalAlpha = alpha;
  context.fill();
  context.globalAlpha = 1;
  if (!stroke) return;
  context.lineWidth = 1.5;
  context.strokeStyle = stroke;
  context.stroke();
}

function paintScale(context, view, ink, font) {
  const most = SCALE_BAR_PIXELS * view.metresPerPixel;
  const power = 10 ** Math.floor(Math.log10(most));
  const metres = [5, 2, 1].find((digit) => digit * power <= most) * power;
  const [x, y, long] = [view.width - 12, view.height - 24, metres / view.metresPerPixel];
  context.strokeStyle = context.fillStyle = ink;
  context.lineWidth = 2;
  context.beginPath();
  context.moveTo(x - long, y - 5);
  context.lineTo(x - long, y);
  context.lineTo(x, y);
  context.lineTo(x, y - 5);
  context.stroke();
  context.font = `11px ${font}`;
  context.textAlign = "center";
  context.fillText(metres < 1000 ? `${metres} m` : `${(metres / 1000).toLocaleString("en")} km`, x - long / 2, y - 6);
  context.textAlign = "start";
}

/** The centre, which Enter selects. */
function paintCross(context, view, ink) {
  const [x, y] = [view.width / 2, view.height / 2];
  context.strokeStyle = ink;
  context.lineWidth = 1.5;
  context.beginPath();
  for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
    context.moveTo(x + 4 * dx, y + 4 * dy);
    context.lineTo(x + 12 * dx, y + 12 * dy);
  }
  context.stroke();
}
