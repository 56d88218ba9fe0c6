// The visible part of the map: an equirectangular projection that zooms and moves.
//
// Straight lines on the map are straight in degrees, as the edges of footprints and areas are for the server. Maps of
// small regions are narrowed by the cosine of their latitude, so that shapes look as they do on the ground.

const MOST_PIXELS_PER_DEGREE = 2e6; // about 0.05 m per pixel
const [LOCAL_DEG, GLOBAL_DEG] = [10, 60]; // heights of maps that are narrowed fully, and not at all
const LEAST_STRETCH = 0.1;
const METRES_PER_DEGREE = 111_195;
/** West, south, east, north of the inhabited Earth. */
export const EARTH = [-180, -60, 180, 84];

const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

/** A longitude from -180 to 180. */
export const wrapped = (lon) => (Math.abs(lon) <= 180 ? lon : lon - 360 * Math.round(lon / 360));

/** The smallest box around boxes [west, south, east, north]; east may exceed 180. Null if there are none. */
export function extent(boxes) {
  if (!boxes.length) return null;
  const spans = boxes.map(([west, , east]) => [west, east < west ? east + 360 : east]).sort(([a], [b]) => a - b);
  // The box begins after the widest gap between longitudes.
  let [start, widest, reach] = [spans[0][0], -Infinity, spans[0][1]];
  for (const [west, east] of spans) {
    if (west - reach > widest) [widest, start] = [west - reach, west];
    reach = Math.max(reach, east);
  }
  if (spans[0][0] + 360 - reach >= widest) [widest, start] = [spans[0][0] + 360 - reach, spans[0][0]];
  const souths = boxes.map(([, south]) => south);
  const norths = boxes.map(([, , , north]) => north);
  const least = (values) => values.reduce((a, b) => Math.min(a, b));
  return [start, least(souths), start + 360 - Math.max(0, widest), -least(norths.map((north) => -north))];
}

export class View {
  lon = 0; // of the centre, from -180 to 180
  lat = 0;
  scale = 1; // pixels per degree of latitude
  width = 0; // in pixels
  height = 0;

  resize(width, height) {
    Object.assign(this, { width, height });
    this.#settle();
  }

  /** Pixels per degree of longitude, divided by those per degree of latitude. */
  get stretch() {
    const local = clamp((GLOBAL_DEG - this.height / this.scale) / (GLOBAL_DEG - LOCAL_DEG), 0, 1);
    const narrow = Math.max(LEAST_STRETCH, Math.cos((this.lat * Math.PI) / 180));
    return 1 + local * (narrow - 1);
  }

  get metresPerPixel() {
    return METRES_PER_DEGREE / this.scale;
  }

  /** Whether the map is large enough in scale for distances to be the same all over it. */
  get isLocal() {
    return this.height / this.scale < GLOBAL_DEG / 2;
  }

  /** Decimals of degrees that a pixel tells apart. */
  get digits() {
    return Math.max(0, Math.ceil(Math.log10(this.scale)));
  }

  /** West, south, east and north; longitudes may exceed 180. */
  get bounds() {
    const [x, y] = [this.width / this.scale / this.stretch / 2, this.height / this.scale / 2];
    return [this.lon - x, this.lat - y, this.lon + x, this.lat + y];
  }

  /** The visible box for a query, as "west,south,east,north", rounded to pixels. */
  get box() {
    const [west, south, east, north] = this.bounds;
    const sides = east - west >= 360 ? [-180, 180] : [wrapped(west), wrapped(east)];
    const round = (value) => Number(value.toFixed(this.digits));
    return [sides[0], Math.max(-90, south), sides[1], Math.min(90, north)].map(round).join(",");
  }

  toPixel([lon, lat]) {
    return [
      this.width / 2 + (lon - this.lon) * this.scale * this.stretch,
      this.height / 2 - (lat - this.lat) * this.scale,
    ];
  }

  /** Longitude and latitude of a pixel; the longitude may exceed 180. */
  toPlace([x, y]) {
    return [
      this.lon + (x - this.width / 2) / this.scale / this.stretch,
      this.lat - (y - this.height / 2) / this.scale,
    ];
  }

  /** The multiples of 360° that move a span of longitudes into view. */
  turns(west, east = west) {
    const [left, , right] = this.bounds;
    const turns = [];
    for (let turn = Math.ceil((left - east) / 360); west + 360 * turn <= right; turn++) turns.push(360 * turn);
    return turns;
  }

  /** Moves by pixels. */
  pan(x, y) {
    this.hold(this.toPlace([this.width / 2 + x, this.height / 2 + y]), [this.width / 2, this.height / 2]);
  }

  /** Zooms; the place at a pixel stays there. */
  zoom(factor, pixel = [this.width / 2, this.height / 2]) {
    const place = this.toPlace(pixel);
    this.scale *= factor;
    this.#settle();
    this.hold(place, pixel);
  }

  /** Moves so that a place is at a pixel. */
  hold([lon, lat], [x, y]) {
    this.lat = lat + (y - this.height / 2) / this.scale;
    this.#settle();
    this.lon = wrapped(lon - (x - this.width / 2) / this.scale / this.stretch);
  }

  /** Shows a whole box; east may exceed 180. `most` limits the pixels per degree. */
  fit([west, south, east, north], most = MOST_PIXELS_PER_DEGREE) {
    this.lat = (south + north) / 2;
    this.lon = wrapped((west + east) / 2);
    this.scale = Math.min(most, this.height / Math.max(north - south, 1e-9));
    // The stretch depends on the scale.
    for (let i = 0; i < 4; i++) this.scale = Math.min(this.scale, this.width / Math.max(east - west, 1e-9) / this.stretch);
    this.#settle();
  }

  /** Keeps the scale and the centre in their ranges. */
  #settle() {
    const least = Math.min(this.width / 360, this.height / 180) || 1;
    this.scale = clamp(this.scale, least, MOST_PIXELS_PER_DEGREE);
    const most = Math.max(0, 90 - this.height / this.scale / 2);
    this.lat = clamp(this.lat, -most, most);
  }
}
