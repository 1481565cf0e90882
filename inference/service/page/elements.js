/* Makes and finds elements of the page. Text is never treated as markup, because names come from files and models. */

export const find = (id) => document.getElementById(id);

/** make("p", {className: "dim"}, "text", element): children may be lists; null is left out. */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.flat(3).filter((child) => child !== null));
  return element;
}

/** An SVG element with its attributes. */
export function draw(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** 0.8312 -> "83.1%" */
export const percent = (share) => (share > 0 && share < 0.001 ? "<0.1%" : `${(100 * share).toFixed(1)}%`);

/** "Pleural_Thickening" -> "Pleural Thickening" */
export const spoken = (name) => name.replaceAll("_", " ");

/** (1, "image") -> "1 image" */
export const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

/** "it fails" -> "It fails." */
export const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1).replace(/[.]?$/, ".");
