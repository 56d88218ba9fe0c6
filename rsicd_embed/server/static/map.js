// The map: hits with their footprints, or groups of all rows, and the area that limits them.

import { $, count } from "./dom.js";
import { hasPlaces, placeOf } from "./format.js";
import { cornersOf } from "./map_area.js";
import * as draw from "./map_draw.js";
import * as gestures from "./map_gestures.js";
import { isVisible, loadLand, paint, radiusOf } from "./map_paint.js";
import { boundsOf, contains, ringsOf } from "./map_shapes.js";
import { EARTH, View, extent } from "./map_view.js";

const MARGIN = 1.25; // of a map that shows all places; groups are bounded by centres, not footprints
const MOST_FITTED = 20_000; // pixels per degree, about 5 m per pixel
const [MOUSE_PIXELS, FINGER_PIXELS] = [8, 16]; // distance from a dot that counts as on it
const REST_MS = 300; // without a move, before the map is described and its groups are loaded
const HINT_MS = 1500;

const view = new View();
let rows = []; // hits or samples, with and without places
let placed = []; // places of rows
let groups = []; // of rows, without a query
let whole = []; // groups of all rows, also while `groups` are those of the visible part
let area = null;
let marked = -1; // index into placed
let isFollowing = true; // whether the map shows all places when they change
let isPainting = false;
let resting = 0;
let hinting = 0;
let onPick = () => {};
let onArea = () => {};
let onRest = () => {};

const canvas = () => $("map-canvas");

/** Calls `pick` with a row's index, and whether it was clicked, when the pointer is on it. */
export function listen(pick) {
  onPick = pick;
  const { zoomBy } = gestures.listen(canvas(), view, {
    moved: () => { isFollowing = false; repaint(); },
    hovered: hover,
    tapped: tap,
    draws: draw.isActive,
    drags: draw.isDragged,
    dragged: draw.drag,
    dropped: draw.drop,
    refused: hint,
  });
  $("zoom-in").addEventListener("click", () => zoomBy(1));
  $("zoom-out").addEventListener("click", () => zoomBy(-1));
  $("zoom-earth").addEventListener("click", () => { isFollowing = false; view.fit(earth()); repaint(); });
  $("zoom-places").addEventListener("click", () => { isFollowing = true; follow(); });
  for (const event of ["focus", "blur"]) canvas().addEventListener(event, repaint);
  new ResizeObserver(resize).observe(canvas());
  new MutationObserver(repaint).observe(document.documentElement, { attributeFilter: ["data-theme"] });
}

/** Calls `change` with the area that the user draws, types or picks, or null. */
export function listenForArea(change) {
  onArea = change;
  draw.listen(view, { change, sketched: repaint });
}

/** Calls `rest` when the map has come to rest, with its box and whether the groups in it stand for several rows each. */
export function listenForRest(rest) {
  onRest = rest;
}

/** Shows the area of the query. */
export function showArea(text) {
  if (area !== text) isFollowing = true;
  area = text;
  draw.show(text);
  repaint();
}

/** Shows hits or samples of rows. */
export function showPlaces(list) {
  rows = list;
  groups = whole = [];
  refresh();
}

/** Shows groups of all rows, each with a mean place, a count and a box, besides the samples. */
export function showGroups(list) {
  groups = whole = list;
  refresh();
}

/** Shows more detailed groups of the visible part. */
export function refineGroups(list) {
  groups = list;
  repaint();
}

/** Shows the map again, if rows have coordinates. */
export function refresh() {
  $("map").hidden = !hasPlaces();
  if (!hasPlaces()) return;
  marked = -1;
  placed = rows.map((hit, index) => ({ ...placeOf(hit), index, id: hit.id, rings: ringsOf(hit.geometry) }))
    .filter(({ lon }) => lon !== undefined);
  for (const place of placed) place.box = place.rings.length ? boundsOf(place.rings) : [place.lon, place.lat, place.lon, place.lat];
  const isPartial = !groups.length && placed.length < rows.length;
  $("map-count").textContent = isPartial ? `(${placed.length} of ${rows.length} results have coordinates)` : "";
  $("zoom-places").hidden = !placed.length && !groups.length;
  const name = groups.length ? "Zoom to all images" : "Zoom to the results";
  $("zoom-places").setAttribute("aria-label", name);
  $("zoom-places").title = name;
  if (isFollowing) follow();
  else repaint();
}

/** Highlights a row. */
export function mark(index) {
  marked = placed.findIndex((place) => place.index === index);
  repaint();
}

// --- the visible part --------------------------------------------------------------------------

const earth = () => (boxes().some(([, south, , north]) => south < EARTH[1] || north > EARTH[3]) ? [-180, -90, 180, 90] : EARTH);

const boxes = () => [...whole, ...placed].map(({ box }) => box);

/** Shows the area and all places, or the Earth if there are none. */
function follow() {
  const within = area && boundsOf([cornersOf(area)]);
  const [west, south, east, north] = extent(within ? [...boxes(), within] : boxes()) ?? earth();
  const [lon, lat] = [(west + east) / 2, (south + north) / 2];
  const [wide, high] = [(MARGIN * (east - west)) / 2, (MARGIN * (north - south)) / 2];
  if (2 * wide > 300 || 2 * high > 150) view.fit(earth());
  else view.fit([lon - wide, lat - high, lon + wide, lat + high], MOST_FITTED);
  repaint();
}

function resize() {
  const isFirst = !view.width;
  const [width, height] = [canvas().clientWidth, canvas().clientHeight];
  if (!width || !height) return; // hidden
  view.resize(width, height);
  if (isFollowing || isFirst) follow();
  if (isFirst) loadLand(repaint);
  repaint();
}

/** Paints before the next frame. */
function repaint() {
  if (isPainting || !view.width || !hasPlaces()) return;
  isPainting = true;
  requestAnimationFrame(() => {
    isPainting = false;
    const ratio = devicePixelRatio;
    const [width, height] = [Math.round(view.width * ratio), Math.round(view.height * ratio)];
    if (canvas().width !== width || canvas().height !== height) Object.assign(canvas(), { width, height });
    const limits = [...(area ? [{ ring: cornersOf(area) }] : []), ...[draw.sketched()].filter(Boolean)];
    const cross = canvas().matches(":focus-visible");
    paint(canvas(), view, ratio, { hits: placed, groups, areas: limits, marked, cross });
    canvas().dataset.view = view.bounds.join(",");
    clearTimeout(resting);
    resting = setTimeout(rest, REST_MS);
  });
}

/** Describes the map in words, and offers to load more detailed groups. */
function rest() {
  const isSeen = ({ lon, lat }) => view.turns(lon).length > 0 && lat >= south && lat <= north;
  const [west, south, east, north] = view.bounds;
  const seen = (groups.length ? groups : placed).filter(isSeen);
  const total = (list) => list.reduce((sum, { count: n = 1 }) => sum + n, 0);
  const degrees = east - west < 10 ? (east - west).toPrecision(2) : Math.round(Math.min(360, east - west));
  const named = groups.length ? count(total(seen), "image") : count(seen.length, "result");
  $("map-status").textContent = `${named} in view; ${degrees}° wide`;
  const isGrouped = groups.length > 0 && seen.some(({ count: n }) => n > 1);
  onRest(view.box, isGrouped && east - west < 180);
}

// --- the pointer -------------------------------------------------------------------------------

/** The hit or group at a pixel, if any: the first hit whose dot is near or whose footprint contains it. */
function at(pixel, near = MOUSE_PIXELS) {
  const distance = ({ lon, lat }) => Math.min(Infinity, ...view.turns(lon).map((turn) => {
    const [x, y] = view.toPixel([lon + turn, lat]);
    return Math.hypot(x - pixel[0], y - pixel[1]);
  }));
  const [lon, lat] = view.toPlace(pixel);
  const isOn = (place) => (place.rings.length && isVisible(view, place.box)
    ? [-360, 0, 360].some((turn) => contains(place.rings, [lon + turn, lat])) : !groups.length && distance(place) <= near);
  const hit = placed.find(isOn);
  const closest = groups.map((group) => [distance(group) - radiusOf(view, group.count), group])
    .reduce((best, other) => (other[0] < best[0] ? other : best), [near / 2, null])[1];
  return { hit: closest ? undefined : hit, group: closest };
}

function hover(pixel) {
  const { hit, group } = draw.isActive() ? {} : at(pixel);
  canvas().classList.toggle("pointing", Boolean(hit || group));
  canvas().title = hit ? `${hit.index + 1}. ${hit.id}` : group ? `${count(group.count, "image")}: limit to this place` : "";
  if (hit && placed[marked] !== hit) onPick(hit.index, false);
}

function tap(pixel, isFinger) {
  if (draw.isActive()) return draw.tap(pixel);
  const { hit, group } = at(pixel, isFinger ? FINGER_PIXELS : MOUSE_PIXELS);
  if (group) return onArea(group.box.join(","));
  return hit ? onPick(hit.index, true) : null;
}

function hint() {
  $("map-hint").hidden = false;
  clearTimeout(hinting);
  hinting = setTimeout(() => { $("map-hint").hidden = true; }, HINT_MS);
}
