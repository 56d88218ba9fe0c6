// Formatting of attributes. Filters send the stored values.

let columns = new Map();
let place = null;
let labels = null; // names of the columns of a label, shown on a line of their own

// Shown elsewhere or not at all.
const HIDDEN = new Set(["rank", "id", "score", "uri", "sha256", "object_etag", "width", "height", "geometry"]);
const LIKELY = "_log_probability"; // ends the name of the column beside one of generated captions
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const TIME = /^(\d{4,})-(\d\d)-(\d\d)(?:[ T](\d\d:\d\d)(?::(\d\d(?:\.\d+)?))?)?(Z|[+-]\d\d:\d\d)?$/;

/** Stores the response of /api/columns. */
export function describe(answer) {
  columns = new Map(answer.columns.map((column) => [column.name, column]));
  place = answer.place;
  labels = answer.labels;
}

/** The readable name of a class, such as "dense residential area", or the value itself. */
export const named = (column, value) => columns.get(column)?.names?.[value] ?? value;

/** Whether rows have columns of coordinates. */
export const hasPlaces = () => place !== null;

/** Longitude and latitude of a hit, or null. */
export function placeOf(hit) {
  if (!place) return null;
  const [lon, lat] = [hit[place.lon], hit[place.lat]];
  return Number.isFinite(lon) && Number.isFinite(lat) && Math.abs(lat) <= 90 ? { lon, lat } : null;
}

/** The captions of a hit that `rsicd-embed caption` wrote, as pairs of a column and a text. */
export function generated(hit) {
  return Object.entries(hit).filter(([name, value]) => typeof value === "string" && `${name}${LIKELY}` in hit);
}

/** The attributes of a hit in one line, without generated captions. */
export function summary(hit) {
  const apart = labels ? [labels.label, labels.probability, labels.corrected] : [];
  for (const [column] of generated(hit)) apart.push(column, `${column}${LIKELY}`);
  return entries(hit).filter(([name, value]) => value !== null && value !== hit.id && !apart.includes(name))
    .map(([name, value]) => [name, short(name, value)]).filter(([, text]) => text !== "")
    .map(([name, text]) => (name === "place" ? text : `${name}: ${text}`)).join(" · ");
}

/** All attributes of a hit, as pairs of a name and a list of texts. */
export function details(hit) {
  const size = hit.width && hit.height ? [["size", [`${hit.width} × ${hit.height} pixels`]]] : [];
  const path = "uri" in hit ? [["path", [hit.uri ?? "none"]]] : [];
  return [...path, ...size, ...entries(hit).flatMap(([name, value]) => long(name, value))];
}

function entries(hit) {
  const where = placeOf(hit);
  const rest = Object.entries(hit).filter(([name]) => !HIDDEN.has(name)
    && !(where && [place.lon, place.lat].includes(name)));
  return where ? [...rest, ["place", where]] : rest;
}

function short(name, value) {
  if (!Array.isArray(value)) return single(name, value, short);
  const values = value.filter((item) => item !== null);
  if (values.every((item) => typeof item === "number")) return values.map((item) => number(item)).join(", ");
  const rest = values.length > 1 ? ` (+${values.length - 1})` : "";
  return values.length ? `${short(name, values[0])}${rest}` : "";
}

function long(name, value) {
  if (Array.isArray(value)) {
    const numbers = value.every((item) => typeof item === "number");
    const items = value.map((item) => single(name, item, (_, inner) => long("", inner).flatMap(([, texts]) => texts).join(", ")));
    return [[name, numbers ? [items.join(", ") || "none"] : items]];
  }
  if (value && typeof value === "object" && name !== "place") {
    const inner = Object.entries(value).flatMap(([key, item]) => long(name ? `${name}.${key}` : key, item));
    return inner.length ? inner : [[name, ["none"]]];
  }
  return [[name, [single(name, value, String)]]];
}

function single(name, value, nested) {
  if (value === null) return "none";
  if (name === "place") return coordinates(value);
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "number") return number(value);
  if (Array.isArray(value)) return nested(name, value);
  if (typeof value === "object") {
    return Object.entries(value).filter(([, item]) => item !== null)
      .map(([key, item]) => `${key} ${nested("", item)}`).join(", ");
  }
  return columns.get(name)?.kind === "time" ? time(value) : named(name, value);
}

/** Formats small numbers with up to six decimals and large ones with two, if possible without an exponent. */
function number(value) {
  if (Number.isInteger(value)) return String(value);
  const size = Math.abs(value);
  if (size >= 1000) return String(Number(value.toFixed(2)));
  return size >= 0.001 ? String(Number(value.toFixed(6))) : String(Number(value.toPrecision(6)));
}

const degrees = (value, positive, negative) => `${number(Math.abs(value))}° ${value < 0 ? negative : positive}`;
const coordinates = ({ lon, lat }) => `${degrees(lat, "N", "S")}, ${degrees(lon, "E", "W")}`;

/** "2 Jan 2020, 23:30 +05:30"; other texts are unchanged. */
export function time(text) {
  const parts = TIME.exec(text);
  if (!parts) return text;
  const [, year, month, day, minutes, seconds = "00", zone = ""] = parts;
  const date = `${Number(day)} ${MONTHS[month - 1]} ${year}`;
  const exact = Number(seconds) ? `:${seconds}` : "";
  if (!minutes || (minutes === "00:00" && !exact && !zone)) return date;
  const where = { "": "", Z: " UTC", "+00:00": " UTC" }[zone] ?? ` ${zone}`;
  return `${date}, ${minutes}${exact}${where}`;
}
