// Helpers for creating elements and showing messages.

export const $ = (id) => document.getElementById(id);

/** Creates an element with properties, attributes (as `@name`) and children. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("@")) element.setAttribute(name.slice(1), value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

/** Creates an SVG element with attributes and children. */
export function draw(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export function button(text, label, action, className = "quiet") {
  const element = make("button", { className, type: "button", textContent: text, "@aria-label": label });
  element.addEventListener("click", action);
  return element;
}

const THUMB = "M2 10h4v11H2zM8 10l4.5-8c2 0 3.3 1.5 2.9 3.5L14.7 9H20c1.5 0 2.4 1.3 2 2.7l-1.8 7.3c-.3 1.300-1.100 2-2.400 2H8z";

/** A button with a thumb, up for `more` and down for `less`. */
export function thumb(role, label, action) {
  const sign = draw("svg", { viewBox: "0 0 24 24", class: "thumb", "aria-hidden": "true" }, draw("path", { d: THUMB }));
  const element = button("", label, action, `quiet ${role}`);
  element.title = role === "more" ? "More like this (+)" : "Less like this (−)";
  element.append(sign);
  return element;
}

/** "1 result", "2 results". */
export const count = (n, word, plural = `${word}s`) => `${n.toLocaleString("en")} ${n === 1 ? word : plural}`;

/** Shows warnings above the results. */
export function notify(warnings) {
  const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}.`;
  $("notices").replaceChildren(...warnings.map((text) => make("p", { textContent: sentence(text) })));
}

export function fail(message) {
  $("error").textContent = message;
  $("error").hidden = false;
}
