// Footprints: polygons in longitudes and latitudes, from WKB in hexadecimal digits as hits have them.

const POLYGON = 3;
const MULTIPOLYGON = 6;

/** The rings of a footprint, each a list of places; none if it is not a polygon. */
export function ringsOf(hex) {
  if (typeof hex !== "string" || !/^(?:[0-9a-f]{2}){9,}$/i.test(hex)) return [];
  const bytes = Uint8Array.from(hex.match(/../g), (pair) => parseInt(pair, 16));
  try {
    return read(new DataView(bytes.buffer), 0)[0];
  } catch (error) {
    if (error instanceof RangeError) return []; // cut short
    throw error;
  }
}

/** The rings of the geometry at an offset, and the offset after it. */
function read(data, offset) {
  const little = data.getUint8(offset) === 1;
  const type = data.getUint32(offset + 1, little);
  const count = data.getUint32(offset + 5, little);
  const rings = [];
  let at = offset + 9;
  if (type === MULTIPOLYGON) {
    for (let i = 0; i < count; i++) {
      const [more, end] = read(data, at);
      rings.push(...more);
      at = end;
    }
  } else if (type === POLYGON) {
    for (let i = 0; i < count; i++) {
      const points = data.getUint32(at, little);
      const ring = [];
      for (at += 4; ring.length < points; at += 16) ring.push([data.getFloat64(at, little), data.getFloat64(at + 8, little)]);
      rings.push(ring);
    }
  } else {
    return [[], data.byteLength];
  }
  return [rings, at];
}

/** West, south, east and north of rings. */
export function boundsOf(rings) {
  const box = [Infinity, Infinity, -Infinity, -Infinity];
  for (const [lon, lat] of rings.flat()) {
    box[0] = Math.min(box[0], lon);
    box[1] = Math.min(box[1], lat);
    box[2] = Math.max(box[2], lon);
    box[3] = Math.max(box[3], lat);
  }
  return box;
}

/** Whether a place is inside rings, by the even-odd rule. */
export function contains(rings, [lon, lat]) {
  let inside = false;
  for (const ring of rings) {
    ring.forEach(([x, y], i) => {
      const [px, py] = ring.at(i - 1);
      if (y > lat !== py > lat && lon < x + ((lat - y) / (py - y)) * (px - x)) inside = !inside;
    });
  }
  return inside;
}
