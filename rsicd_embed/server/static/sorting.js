// Orders of the results: by score, time or place.

import { placeOf } from "./format.js";

const EARTH_KM = 6371;

let time = null;
let hasPlaces = false;

/** Uses the first column of times, and the columns of coordinates, of the response of /api/columns. */
export function setColumns({ columns, place }) {
  time = columns.find(({ kind }) => kind === "time")?.name ?? null;
  hasPlaces = place !== null;
}

/** The orders that the store's columns allow, as pairs of a value and a label. */
export const orders = () => [
  ["score", "score"],
  ...(time === null ? [] : [["newest", `newest first (${time})`], ["oldest", `oldest first (${time})`]]),
  ...(hasPlaces ? [["west", "west to east"], ["north", "north to south"], ["nearest", "nearest to the best"]] : []),
];

/** Sorts hits, given best first; those without a time or place come last, best first. */
export function sorted(hits, order) {
  const key = {
    newest: (hit) => -momentOf(hit),
    oldest: momentOf,
    west: (hit) => placeOf(hit)?.lon ?? NaN,
    north: (hit) => -(placeOf(hit)?.lat ?? NaN),
    nearest: distanceFrom(hits.find(placeOf)),
  }[order];
  if (!key) return hits;
  const keyed = hits.map((hit) => [key(hit), hit]);
  const known = keyed.filter(([value]) => !Number.isNaN(value));
  return [...known.sort(([a], [b]) => a - b), ...keyed.filter(([value]) => Number.isNaN(value))].map(([, hit]) => hit);
}

const momentOf = (hit) => Date.parse(hit[time]);

function distanceFrom(best) {
  if (!best) return () => NaN;
  const radians = ({ lon, lat }) => [lon, lat].map((degrees) => (degrees * Math.PI) / 180);
  const [lon, lat] = radians(placeOf(best));
  return (hit) => {
    const place = placeOf(hit);
    if (!place) return NaN;
    const [x, y] = radians(place);
    const square = Math.sin((y - lat) / 2) ** 2 + Math.cos(lat) * Math.cos(y) * Math.sin((x - lon) / 2) ** 2;
    return 2 * EARTH_KM * Math.asin(Math.min(1, Math.sqrt(square)));
  };
}
