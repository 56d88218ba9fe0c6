// The larger view of a hit, with its path, attributes and a download link.

import { imageUrl, originalUrl } from "./api.js";
import { $, make } from "./dom.js";
import { details } from "./format.js";

const SIDE = 1600;

let hits = [];
let at = 0;
let originals = false;

/** Sets the actions of the buttons: `like`, `find`, `more` and `less`, called with an id. */
export function listen({ like, find, more, less }) {
  const act = (action) => () => { const { id } = hits[at]; $("viewer").close(); action(id); };
  $("view-like").addEventListener("click", act(like));
  $("view-find").addEventListener("click", act(find));
  $("view-more").addEventListener("click", act(more));
  $("view-less").addEventListener("click", act(less));
  $("view-close").addEventListener("click", () => $("viewer").close());
  $("view-previous").addEventListener("click", () => step(-1));
  $("view-next").addEventListener("click", () => step(1));
  $("viewer").addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (by) step(by);
    const role = { "+": "more", "-": "less" }[event.key];
    if (role && !$(`view-${role}`).hidden) $(`view-${role}`).click();
  });
  // A click on the dialog itself is outside its content.
  $("viewer").addEventListener("click", (event) => event.target === $("viewer") && $("viewer").close());
  $("view-picture").addEventListener("error", () => {
    $("view-picture").hidden = true;
    $("view-missing").hidden = false;
    $("view-download").hidden = true;
  });
}

/** Sets whether the original files can be downloaded. */
export function allowOriginals(allowed) {
  originals = allowed;
}

/** Opens the dialog. When it closes, the browser restores the focus. */
export function open(list, index) {
  hits = list;
  $("viewer").showModal();
  show(index);
}

function step(by) {
  const next = at + by;
  if (next >= 0 && next < hits.length) show(next);
}

function show(index) {
  at = index;
  const hit = hits[at];
  const isScored = hit.score !== undefined;
  $("view-title").textContent = hit.id;
  $("view-rank").textContent = `Result ${at + 1} of ${hits.length}${isScored ? `, score ${hit.score.toFixed(3)}` : ""}`;
  $("view-less").hidden = !isScored;
  $("view-picture").hidden = false;
  $("view-missing").hidden = true;
  $("view-picture").src = imageUrl(hit.id, SIDE);
  $("view-picture").alt = hit.id;
  $("view-previous").disabled = at === 0;
  $("view-next").disabled = at === hits.length - 1;
  const name = hit.id.split("/").pop();
  $("view-download").hidden = false;
  $("view-download").href = originals ? originalUrl(hit.id) : imageUrl(hit.id, SIDE);
  $("view-download").download = originals ? name : `${name.replace(/\.\w{2,5}$/, "")}.jpg`;
  $("view-details").replaceChildren(...details(hit).flatMap(([term, texts]) =>
    [make("dt", { textContent: term }), ...texts.map((text) => make("dd", { textContent: text }))]));
  $("view-details").scrollTop = 0;
}
