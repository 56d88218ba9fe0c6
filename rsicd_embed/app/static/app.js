// The search page: three ways to search, filters, results, a map, and where it is in a picture.

const $ = (id) => document.getElementById(id);
const EXAMPLES = ["an airport with planes", "boats in a harbour", "a beach with white waves",
  "green farmland", "a river with a bridge", "dense houses", "snow on mountains", "a desert"];
const WAYS = ["words", "picture", "find"];
const HIDDEN = new Set(["rank", "id", "score", "sha256", "width", "height"]);

// What was asked last, so that other filters or another number of results ask it again.
let again = null;
let columns = [];
let place = null;
let running = null;
// For both panels with a picture: a file that was brought, or the id of a row.
const chosen = { picture: null, find: null };

// --- small helpers ---------------------------------------------------------------------------

/** An element with properties, attributes (as `@name`) and children. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("@")) element.setAttribute(name.slice(1), value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

function draw(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const pictureUrl = (id, side) => `/api/pictures?${new URLSearchParams({ id, side })}`;
const count = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;

/** Asks the API; a newer question stops an older one, whose answer is then null. */
async function ask(url, options = {}) {
  running?.abort();
  const mine = (running = new AbortController());
  const started = performance.now();
  $("progress").hidden = false;
  $("error").hidden = true;
  showWarnings([]);
  $("status").textContent = "Working …";
  try {
    const response = await fetch(url, { ...options, signal: mine.signal });
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error);
    showWarnings(answer.warnings ?? []);
    return { ...answer, ms: performance.now() - started };
  } catch (error) {
    if (error.name === "AbortError") return null;
    $("status").textContent = "";
    fail(error instanceof TypeError ? "The server does not answer. Is it still running?" : error.message);
    return null;
  } finally {
    if (running === mine) {
      running = null;
      $("progress").hidden = true;
    }
  }
}

function fail(message) {
  $("error").textContent = message;
  $("error").hidden = false;
}

/** Above the results: what may make them misleading. */
function showWarnings(warnings) {
  const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}.`;
  $("warnings").replaceChildren(...warnings.map((one) => make("p", { textContent: sentence(one) })));
}

// --- the three ways --------------------------------------------------------------------------

function show(way, focus = true) {
  for (const one of WAYS) {
    const tab = $(`tab-${one}`);
    tab.setAttribute("aria-selected", one === way);
    tab.tabIndex = one === way ? 0 : -1;
    $(`panel-${one}`).hidden = one !== way;
  }
  const finding = way === "find";
  $("filters").hidden = finding || columns.length === 0;
  $("show").hidden = finding;
  $("results").hidden = finding;
  $("map").hidden = finding || !$("map").dataset.hits;
  $("found").hidden = !finding || !$("whole").src;
  $("error").hidden = true;
  if (focus) $(`tab-${way}`).focus();
}

function body(query) {
  return {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ ...query, k: Number($("k").value), filters: filters() }),
  };
}

async function searchWords(text) {
  $("text").value = text;
  again = () => searchWords(text);
  history.replaceState(null, "", `?${new URLSearchParams({ text })}`);
  const answer = await ask("/api/search", body({ text }));
  if (answer) showHits(answer, `for “${text}”`);
}

async function searchPicture() {
  const source = chosen.picture;
  if (!source) return;
  again = searchPicture;
  let answer;
  if (typeof source === "string") {
    answer = await ask("/api/search", body({ id: source }));
  } else {
    const form = new FormData();
    form.set("image", source);
    form.set("k", $("k").value);
    form.set("filters", JSON.stringify(filters()));
    answer = await ask("/api/search/image", { method: "POST", body: form });
  }
  if (answer) showHits(answer, `like ${typeof source === "string" ? source : source.name}`);
}

async function find() {
  const source = chosen.find;
  const text = $("find-text").value.trim();
  if (!source) return fail("Choose a picture to look into first.");
  if (!text) return fail("Say what to find in the picture.");
  const form = new FormData();
  form.set("text", text);
  form.set(typeof source === "string" ? "id" : "image", source);
  form.set("k", 8);
  for (const line of $("against").value.split("\n")) if (line.trim()) form.append("against", line.trim());
  if ($("patch").value) form.set("patch", $("patch").value);
  const answer = await ask("/api/find", { method: "POST", body: form });
  if (answer) showFound(answer, source);
  return null;
}

/** Takes a file or an id as the picture of a panel, and shows it there. */
function choose(way, source) {
  if (source instanceof File && source.size > 20 * 1024 * 1024) {
    return fail("Expected a picture of at most 20 MB; make it smaller.");
  }
  chosen[way] = source;
  const preview = $(`panel-${way}`).querySelector(".preview");
  const old = preview.querySelector("img");
  if (old?.src.startsWith("blob:")) URL.revokeObjectURL(old.src);
  const url = typeof source === "string" ? pictureUrl(source, 320) : URL.createObjectURL(source);
  const name = typeof source === "string" ? source : source.name;
  preview.replaceChildren(make("img", { src: url, alt: `Chosen picture: ${name}` }));
  show(way, false);
  if (way === "picture") return searchPicture();
  $("found").hidden = true;
  $("status").textContent = "";
  showWarnings([]);
  return $("find-text").focus();
}

// --- results ---------------------------------------------------------------------------------

function showHits({ hits, ms }, what) {
  $("status").textContent = hits.length
    ? `${count(hits.length, "result")} ${what}, in ${Math.round(ms)} ms`
    : "No results: the store is empty, or no row fits the filters.";
  $("results").replaceChildren(...hits.map(card));
  drawMap(hits);
  $("results").hidden = false;
}

function card(hit) {
  const picture = make("img", { alt: "", loading: "lazy", decoding: "async", src: pictureUrl(hit.id, 320) });
  picture.addEventListener("error", () => picture.replaceWith("no picture"), { once: true });
  const like = make("button", { className: "picture", type: "button", title: "Search for what looks like it",
    "@aria-label": `Result ${hit.rank}, ${hit.id}: search for what looks like it` }, picture);
  like.addEventListener("click", () => choose("picture", hit.id));
  const inside = make("button", { className: "quiet", type: "button", textContent: "find in it",
    "@aria-label": `Find something in ${hit.id}` });
  inside.addEventListener("click", () => choose("find", hit.id));
  const item = make("li", { className: "card" }, like,
    make("div", { className: "words" },
      make("div", { className: "top" },
        make("span", { className: "score", textContent: hit.score.toFixed(3), title: "Cosine similarity" }), inside),
      make("div", { className: "name", textContent: hit.id, title: hit.id }),
      make("div", { className: "attributes", textContent: attributes(hit) })));
  item.addEventListener("pointerenter", () => mark(hit.rank));
  item.addEventListener("focusin", () => mark(hit.rank));
  return item;
}

function attributes(hit) {
  return Object.entries(hit)
    .filter(([name, value]) => !HIDDEN.has(name) && value !== null && value !== hit.id)
    .map(([name, value]) => `${name}: ${short(value)}`).join(" · ");
}

function short(value) {
  if (Array.isArray(value)) return typeof value[0] === "number" ? value.map(short).join(", ") : short(value[0] ?? "");
  if (typeof value === "number" && !Number.isInteger(value)) return String(Number(value.toPrecision(5)));
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** Shows which point of the map a result is, and the other way round. */
function mark(rank) {
  $("results").querySelectorAll(".card").forEach((one, i) => one.classList.toggle("marked", i + 1 === rank));
  $("map").querySelectorAll(".hit").forEach((one) => one.classList.toggle("marked", one.dataset.rank === String(rank)));
}

// --- the map ---------------------------------------------------------------------------------

let zoomed = false;
let placed = [];

function drawMap(hits) {
  const whole = (hit) => Number.isFinite(hit[place.lon]) && Number.isFinite(hit[place.lat]);
  placed = place ? hits.filter(whole).filter((hit) => Math.abs(hit[place.lat]) <= 90) : [];
  if (placed.length) $("map").dataset.hits = placed.length;
  else delete $("map").dataset.hits;
  $("map").hidden = !placed.length;
  if (placed.length) drawPlaces();
}

/** Left, top, width and height of what is seen, in degrees, latitudes pointing down. */
function view() {
  if (!zoomed) return [-180, -90, 360, 180];
  const [xs, ys] = [placed.map((hit) => hit[place.lon]), placed.map((hit) => -hit[place.lat])];
  const [left, top] = [Math.min(...xs), Math.min(...ys)];
  const [wide, high] = [Math.max(...xs) - left, Math.max(...ys) - top];
  const width = Math.max(wide * 1.3, high * 2.6, 0.02);
  return [left + wide / 2 - width / 2, top + high / 2 - width / 4, width, width / 2];
}

function drawPlaces() {
  const [left, top, width, height] = view();
  const step = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30].find((one) => width / one <= 13) ?? 30;
  const svg = $("map").querySelector("svg");
  svg.setAttribute("viewBox", `${left} ${top} ${width} ${height}`);
  const land = draw("image", { href: "/static/land.png", x: -180, y: -90, width: 360, height: 180, preserveAspectRatio: "none" });
  const parts = [land];
  const [size, digits] = [height / 32, Math.max(0, -Math.floor(Math.log10(step)))];
  for (let x = Math.ceil(left / step) * step; x <= left + width; x += step) {
    parts.push(draw("path", { class: "grid", d: `M${x} ${top}v${height}` }));
    if (x > left) parts.push(draw("text", { x: x + size / 4, y: top + height - size / 3, "font-size": size }, `${Math.abs(x).toFixed(digits)}°${x < 0 ? "W" : "E"}`));
  }
  for (let y = Math.ceil(top / step) * step; y <= top + height; y += step) {
    parts.push(draw("path", { class: "grid", d: `M${left} ${y}h${width}` }));
    if (y > top) parts.push(draw("text", { x: left + size / 3, y: y - size / 4, "font-size": size }, `${Math.abs(y).toFixed(digits)}°${y > 0 ? "S" : "N"}`));
  }
  // The best last, above the others.
  for (const hit of [...placed].reverse()) {
    const dot = draw("circle", { class: "hit", cx: hit[place.lon], cy: -hit[place.lat], r: height / 55, "data-rank": hit.rank },
      draw("title", {}, `${hit.rank}. ${hit.id}`));
    dot.addEventListener("pointerenter", () => mark(hit.rank));
    dot.addEventListener("click", () => {
      mark(hit.rank);
      $("results").children[hit.rank - 1].scrollIntoView({ block: "center", behavior: "smooth" });
    });
    parts.push(dot);
  }
  svg.replaceChildren(...parts);
  $("zoom").textContent = zoomed ? "Show the whole Earth" : "Zoom to the results";
  $("zoom").setAttribute("aria-pressed", zoomed);
}

// --- where it is in a picture ----------------------------------------------------------------

function showFound(answer, source) {
  const whole = $("whole");
  if (whole.src.startsWith("blob:")) URL.revokeObjectURL(whole.src);
  whole.src = typeof source === "string" ? pictureUrl(source, 1600) : URL.createObjectURL(source);
  whole.alt = `The picture in which “${answer.query}” was looked for`;
  $("heat").src = answer.heat_map;
  $("status").textContent = `${count(answer.count, "patch").replace("patchs", "patches")} looked at for “${answer.query}”, in ${(answer.ms / 1000).toFixed(1)} s`;
  $("versus").textContent = `Probabilities against: ${answer.against.join(", ")}`;
  const boxes = [];
  const items = answer.patches.map(({ rank, score, probability, box }) => {
    const frame = make("div");
    const [left, top, right, bottom] = box;
    frame.style.left = `${(100 * left) / answer.width}%`;
    frame.style.top = `${(100 * top) / answer.height}%`;
    frame.style.width = `${(100 * (right - left)) / answer.width}%`;
    frame.style.height = `${(100 * (bottom - top)) / answer.height}%`;
    boxes.push(frame);
    const button = make("button", { type: "button", title: `Cosine similarity ${score.toFixed(3)}; ${left}, ${top} – ${right}, ${bottom}` },
      make("span", { textContent: `${rank}. ${score.toFixed(3)}` }), make("span", { textContent: `${(100 * probability).toFixed(0)} %` }));
    const pick = () => markPatch(rank - 1);
    for (const event of ["pointerenter", "focus", "click"]) button.addEventListener(event, pick);
    return make("li", {}, button);
  });
  $("boxes").replaceChildren(...boxes);
  $("patches").replaceChildren(...items);
  markPatch(0);
  $("found").hidden = false;
}

function markPatch(place) {
  [...$("boxes").children].forEach((one, i) => one.classList.toggle("marked", i === place));
  $("patches").querySelectorAll("button").forEach((one, i) => one.classList.toggle("marked", i === place));
}

// --- filters ---------------------------------------------------------------------------------

function addFilter() {
  const column = make("select", { "@aria-label": "Attribute" }, ...columns.map(({ name }) => make("option", { textContent: name })));
  const operator = make("select", { "@aria-label": "Comparison" });
  const value = make("span");
  const remove = make("button", { className: "quiet", type: "button", textContent: "Remove", "@aria-label": "Remove this filter" });
  const row = make("div", { className: "condition" }, column, operator, value, remove);
  const build = () => {
    const { kind, operators, values, min, max } = columns.find(({ name }) => name === column.value);
    operator.replaceChildren(...operators.map((one) => make("option", { textContent: one })));
    let field;
    if (values || kind === "truth") {
      const options = ["", ...(values ?? ["true", "false"])];
      field = make("select", {}, ...options.map((one) => make("option", { textContent: one })));
    } else {
      const hint = min === undefined ? "" : `${short(min)} to ${short(max)}`;
      field = make("input", { type: { number: "number", time: "date" }[kind] ?? "text", placeholder: hint });
      if (kind === "number") field.step = "any";
    }
    field.className = "value";
    field.setAttribute("aria-label", "Value");
    row.querySelector(".value, span").replaceWith(field);
    field.addEventListener("change", refilter);
  };
  column.addEventListener("change", () => { build(); refilter(); });
  operator.addEventListener("change", () => {
    row.querySelector(".value").hidden = operator.value.endsWith("empty");
    refilter();
  });
  remove.addEventListener("click", () => { row.remove(); refilter(); $("add-filter").focus(); });
  build();
  $("conditions").append(row);
  column.focus();
}

/** The filters that are complete. */
function filters() {
  return [...$("conditions").children].map((row) => {
    const [column, operator] = row.querySelectorAll("select");
    const value = row.querySelector(".value").value;
    return operator.value.endsWith("empty") ? { column: column.value, operator: operator.value }
      : { column: column.value, operator: operator.value, value };
  }).filter((one) => one.value !== "");
}

function refilter() {
  const n = filters().length;
  $("filter-count").textContent = n ? `(${n})` : "";
  again?.();
}

// --- the page itself -------------------------------------------------------------------------

function listen() {
  $("form-words").addEventListener("submit", (event) => {
    event.preventDefault();
    searchWords($("text").value);
  });
  $("form-find").addEventListener("submit", (event) => {
    event.preventDefault();
    find();
  });
  for (const way of ["picture", "find"]) {
    const input = $(`file-${way}`);
    input.addEventListener("change", () => input.files[0] && choose(way, input.files[0]));
    const area = $(`panel-${way}`).querySelector(".drop") ?? $(`panel-${way}`);
    area.addEventListener("dragover", (event) => { event.preventDefault(); area.classList.add("over"); });
    area.addEventListener("dragleave", () => area.classList.remove("over"));
    area.addEventListener("drop", (event) => {
      event.preventDefault();
      area.classList.remove("over");
      if (event.dataTransfer.files[0]) choose(way, event.dataTransfer.files[0]);
    });
  }
  document.addEventListener("paste", (event) => {
    const file = event.clipboardData.files[0];
    if (file) choose($("panel-find").hidden ? "picture" : "find", file);
  });
  WAYS.forEach((way, i) => {
    $(`tab-${way}`).addEventListener("click", () => show(way));
    $(`tab-${way}`).addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) show(WAYS[(i + step + WAYS.length) % WAYS.length]);
    });
  });
  $("results").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const cards = [...$("results").children];
    const at = cards.findIndex((one) => one.contains(document.activeElement));
    if (step && at >= 0) cards[at + step]?.querySelector(".picture").focus();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !/INPUT|TEXTAREA|SELECT/.test(event.target.tagName)) {
      event.preventDefault();
      show("words", false);
      $("text").focus();
      $("text").select();
    }
  });
  $("k").addEventListener("change", () => again?.());
  $("add-filter").addEventListener("click", addFilter);
  $("zoom").addEventListener("click", () => { zoomed = !zoomed; drawPlaces(); });
  $("opacity").addEventListener("input", () => { $("heat").style.opacity = $("opacity").value; });
  $("theme").addEventListener("click", () => {
    const dark = document.documentElement.dataset.theme !== "dark";
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    localStorage.setItem("theme", dark ? "dark" : "light");
  });
}

async function start() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  document.documentElement.dataset.theme = localStorage.getItem("theme") ?? dark;
  listen();
  show("words", false);
  const text = new URLSearchParams(location.search).get("text");
  if (text) searchWords(text);
  try {
    const response = await fetch("/api/columns");
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error);
    ({ columns, place } = answer);
    $("about").textContent = `${count(answer.rows, "picture")}: in plain words, by a picture, or inside one`;
    $("filters").hidden = columns.length === 0 || !$("panel-find").hidden;
    const labels = columns.find(({ name, values }) => values?.length > 1 && /label|class|category/i.test(name));
    const examples = labels ? labels.values.slice(0, EXAMPLES.length) : EXAMPLES;
    $("examples").replaceChildren(...examples.map((one) => {
      const button = make("button", { type: "button", textContent: one });
      button.addEventListener("click", () => searchWords(one));
      return button;
    }));
  } catch (error) {
    fail(error.message);
  }
}

start();
