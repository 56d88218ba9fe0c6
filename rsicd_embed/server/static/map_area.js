// The area of a query: a box "west,south,east,north" or a polygon "lon,lat,lon,lat,lon,lat,…", as text in addresses.
//
// Longitudes of a polygon may exceed 180 where it crosses the antimeridian; a box that crosses it has west > east.

const MOST_CORNERS = 500;

/** Parses and normalises the text of an area; null if it is none. */
export function parse(text) {
  const parts = text.split(",").map((part) => part.trim());
  const numbers = parts.map(Number);
  if (parts.some((part) => part === "") || !numbers.every(Number.isFinite)) return null;
  return (numbers.length === 4 ? isBox(numbers) : isPolygon(numbers)) ? numbers.join(",") : null;
}

const isBox = ([west, south, east, north]) =>
  Math.abs(west) <= 180 && Math.abs(east) <= 180 && south >= -90 && north <= 90 && south <= north;

const isPolygon = (numbers) => numbers.length >= 6 && numbers.length % 2 === 0 && numbers.length <= 2 * MOST_CORNERS
  && numbers.every((value, i) => Math.abs(value) <= (i % 2 ? 90 : 540));

/** The corners of an area, as places; those of a box across the antimeridian exceed 180. */
export function cornersOf(text) {
  const numbers = text.split(",").map(Number);
  if (numbers.length > 4) return numbers.flatMap((lon, i) => (i % 2 ? [] : [[lon, numbers[i + 1]]]));
  const [west, south, east, north] = numbers;
  const right = east < west ? east + 360 : east;
  return [[west, south], [right, south], [right, north], [west, north]];
}

/** The area for the server: four numbers, or a polygon as GeoJSON. */
export function toRequest(text) {
  const numbers = text.split(",").map(Number);
  if (numbers.length === 4) return numbers;
  const corners = cornersOf(text);
  const turn = 360 * Math.floor((Math.min(...corners.map(([lon]) => lon)) + 180) / 360);
  const outline = corners.map(([lon, lat]) => [lon - turn, lat]);
  const closed = (ring) => [...ring, ring[0]];
  if (outline.every(([lon]) => lon <= 180)) return { type: "Polygon", coordinates: [closed(outline)] };
  const sides = [cut(outline, 1), cut(outline, -1).map(([lon, lat]) => [lon - 360, lat])];
  return { type: "MultiPolygon", coordinates: sides.map((ring) => [closed(ring)]) };
}

/** The part of a polygon west of 180° (`side` 1), or east of it (-1). */
function cut(ring, side) {
  const inside = ([lon]) => side * (180 - lon) >= 0;
  return ring.flatMap((place, i) => {
    const before = ring.at(i - 1);
    const share = (180 - before[0]) / (place[0] - before[0]);
    const crossing = [180, before[1] + share * (place[1] - before[1])];
    return [...(inside(place) !== inside(before) ? [crossing] : []), ...(inside(place) ? [place] : [])];
  });
}

/** An area in a few words, for its chip. */
export function describe(text) {
  const corners = cornersOf(text).length;
  return text.split(",").length === 4 ? text.replaceAll(",", ", ") : `a polygon of ${corners} corners`;
}
