// The result of "find": a heat map over the image, and a box for each of the best patches.

import { imageUrl } from "./api.js";
import { $, count, make } from "./dom.js";

export function show(answer, source) {
  const whole = $("whole");
  if (whole.src.startsWith("blob:")) URL.revokeObjectURL(whole.src);
  whole.src = imageUrl(source, 1600);
  whole.alt = `The image searched for “${answer.query}”`;
  $("heat").src = answer.heat_map;
  $("status").textContent = `${count(answer.count, "patch", "patches")} compared with “${answer.query}”, in ${(answer.ms / 1000).toFixed(1)} s`;
  $("versus").textContent = answer.logit_bias === null ? `Probabilities against: ${answer.against.join(", ")}` : "";
  $("boxes").replaceChildren(...answer.patches.map((patch) => frame(patch, answer)));
  $("patches").replaceChildren(...answer.patches.map(item));
  mark(0);
  $("found").hidden = false;
}

function frame({ box: [left, top, right, bottom] }, { width, height }) {
  const element = make("div");
  element.style.left = `${(100 * left) / width}%`;
  element.style.top = `${(100 * top) / height}%`;
  element.style.width = `${(100 * (right - left)) / width}%`;
  element.style.height = `${(100 * (bottom - top)) / height}%`;
  return element;
}

function item({ rank, score, probability, box: [left, top, right, bottom] }) {
  const button = make("button", { type: "button", title: `Cosine similarity ${score.toFixed(3)}; ${left}, ${top} – ${right}, ${bottom}` },
    make("span", { textContent: `${rank}. ${score.toFixed(3)}` }), make("span", { textContent: `${(100 * probability).toFixed(0)} %` }));
  for (const event of ["pointerenter", "focus", "click"]) button.addEventListener(event, () => mark(rank - 1));
  return make("li", {}, button);
}

function mark(index) {
  [...$("boxes").children].forEach((box, i) => box.classList.toggle("marked", i === index));
  $("patches").querySelectorAll("button").forEach((button, i) => button.classList.toggle("marked", i === index));
}
