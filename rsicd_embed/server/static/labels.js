// The label of a result with its probability, and its correction where the server allows that.

import * as api from "./api.js";
import { $, button, fail, make } from "./dom.js";
import { named } from "./format.js";

const OTHER = "\u0000"; // not a label

let names = null; // of the columns
let classes = [];

/** Uses the columns of labels of the response of /api/columns. */
export function setColumns({ labels, columns }) {
  names = labels;
  classes = columns.find(({ name }) => name === names?.label)?.values ?? [];
  $("corrections").hidden = !names?.writable;
}

/** The line that shows the label of a row; null if there is nothing to show. */
export function labelLine(hit) {
  if (!names || (!names.writable && hit[names.label] == null)) return null;
  const label = hit[names.label] ?? null;
  const note = hit[names.corrected] != null ? "corrected"
    : label !== null && hit[names.probability] != null ? `${Math.round(100 * hit[names.probability])} %` : "";
  const line = make("div", { className: "label" });
  line.append(names.writable ? choice(hit, line) : make("span", { className: "class", textContent: named(names.label, label) }),
    make("span", { className: "note", textContent: note }));
  if (names.writable && label !== null && hit[names.corrected] == null) {
    line.append(button("✓", `Confirm the label of ${hit.id}`, () => save(hit, line, label), "quiet confirm"));
  }
  if (hit.previous) line.append(button("undo", `Undo the label of ${hit.id}`, () => undo(hit, line), "quiet undo"));
  return line;
}

function choice(hit, line) {
  const label = hit[names.label] ?? "";
  const all = label && !classes.includes(label) ? [label, ...classes] : classes;
  const select = make("select", { "@aria-label": `Label of ${hit.id}` },
    ...(label ? [] : [make("option", { value: "", textContent: "no label" })]),
    ...all.map((value) => make("option", { value, textContent: named(names.label, value) })),
    make("option", { value: OTHER, textContent: "another …" }));
  select.value = label;
  select.addEventListener("change", () => (select.value === OTHER ? ask(hit, line, select) : save(hit, line, select.value)));
  return select;
}

/** Asks for a label that no row has yet. */
function ask(hit, line, select) {
  const input = make("input", { type: "text", maxLength: 200, "@aria-label": `New label of ${hit.id}`, placeholder: "new label" });
  input.addEventListener("keydown", (event) => {
    if (event.key === "Escape") redraw(hit, line);
    if (event.key !== "Enter") return;
    const label = input.value.trim();
    if (label) save(hit, line, label);
    else redraw(hit, line);
  });
  select.replaceWith(input);
  input.focus();
}

const save = (hit, line, label) => change(hit, line, { label });

function undo(hit, line) {
  const { label, probability, corrected } = hit.previous;
  return change(hit, line, { label, probability, corrected: corrected !== null });
}

/** Writes a label, unless somebody else has changed it since the row was shown. */
async function change(hit, line, fields) {
  try {
    const answer = await api.post("/api/labels", { id: hit.id, was: hit[names.label] ?? null, ...fields });
    const isUndo = fields.corrected !== undefined;
    Object.assign(hit, {
      [names.label]: answer.label, [names.probability]: answer.probability, [names.corrected]: answer.corrected,
    });
    Object.defineProperty(hit, "previous", { value: isUndo ? null : answer.before, configurable: true });
    if (answer.label !== null && !classes.includes(answer.label)) classes = [...classes, answer.label];
    $("announcement").textContent = `Label of ${hit.id}: ${answer.label ?? "none"}`;
    $("error").hidden = true;
  } catch (error) {
    fail(error.message);
  }
  redraw(hit, line);
}

function redraw(hit, line) {
  const next = labelLine(hit);
  line.replaceWith(next);
  next.querySelector("select").focus({ preventScroll: true });
}
