// Filters: one row each, built from the store's columns.

import { $, button, make } from "./dom.js";
import { named, time } from "./format.js";

let columns = [];
let onChange = () => {};

/** Calls `change` with the complete filters whenever they change. */
export function listen(change) {
  onChange = change;
  $("add-filter").addEventListener("click", () => addRow().querySelector("select").focus());
}

export function setColumns(list) {
  columns = list;
}

export const available = () => columns.length > 0;

/** Shows filters, unless the rows already match them. */
export function show(filters) {
  $("filter-count").textContent = filters.length ? `(${filters.length})` : "";
  const known = filters.filter(({ column }) => columns.some(({ name }) => name === column));
  if (JSON.stringify(known) === JSON.stringify(read())) return;
  $("conditions").replaceChildren();
  known.forEach(addRow);
  if (known.length) $("filters").open = true;
}

/** Reads the complete filters from the rows. */
function read() {
  return [...$("conditions").children].map((row) => {
    const [column, operator] = row.querySelectorAll("select");
    const filter = { column: column.value, operator: operator.value };
    return isUnary(operator.value) ? filter : { ...filter, value: row.querySelector(".value").value };
  }).filter(({ value }) => value !== "");
}

const isUnary = (operator) => operator.endsWith("empty");

function addRow(filter = { column: columns[0].name }) {
  const options = (values, text = (value) => value) =>
    values.map((value) => make("option", { value, textContent: text(value) }));
  const column = make("select", { "@aria-label": "Attribute" }, ...options(columns.map(({ name }) => name)));
  const operator = make("select", { "@aria-label": "Comparison" });
  const remove = button("Remove", "Remove this filter", () => { row.remove(); change(); $("add-filter").focus(); });
  const row = make("div", { className: "condition" }, column, operator, make("span", { className: "value" }), remove);
  const change = () => onChange(read());

  const setValue = (value = "") => {
    const { name, kind, type, values, min, max } = columns.find((candidate) => candidate.name === column.value);
    const choices = kind === "truth" ? ["true", "false"] : ["=", "!="].includes(operator.value) ? values : null;
    let field;
    if (choices) {
      const all = choices.includes(value) || value === "" ? choices : [...choices, value];
      field = make("select", {}, make("option", { value: "", textContent: "choose …" }), ...options(all, (choice) => named(name, choice)));
    } else {
      const isDate = kind === "time" && type.startsWith("date");
      field = make("input", { type: kind === "number" ? "number" : isDate ? "date" : "text" });
      if (kind === "number") field.step = "any";
      if (kind === "time") field.title = "A date, or a time such as 2024-05-17T12:30, in the column's time zone unless it has an offset such as +02:00";
      if (min !== undefined) field.placeholder = kind === "time" ? `${min.slice(0, 10)} to ${max.slice(0, 10)}` : `${short(min)} to ${short(max)}`;
      if (isDate && min !== undefined) field.title = `From ${time(min)} to ${time(max)}`;
    }
    field.value = value;
    field.className = "value";
    field.hidden = isUnary(operator.value);
    field.setAttribute("aria-label", "Value");
    row.querySelector(".value").replaceWith(field);
    field.addEventListener("change", change);
  };
  const setColumn = () => {
    operator.replaceChildren(...options(columns.find(({ name }) => name === column.value).operators));
  };
  column.addEventListener("change", () => { setColumn(); setValue(); change(); });
  operator.addEventListener("change", () => { setValue(row.querySelector(".value").value); change(); });
  column.value = filter.column;
  setColumn();
  if (filter.operator) operator.value = filter.operator;
  setValue(filter.value);
  $("conditions").append(row);
  return row;
}

const short = (value) => String(Number(value.toPrecision(6)));
