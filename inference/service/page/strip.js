/* The list of images, each with what the model said about it. */

import { count, find, make } from "./elements.js";
import { films } from "./films.js";
import { called, summary } from "./findings.js";

/** Draws the list if there is more than one image. choose: called with a film. */
export function drawStrip(selected, choose) {
  find("strip").hidden = films.length < 2;
  find("strip-title").textContent = count(films.length, "image");
  find("retry").hidden = !films.some((film) => film.error?.passing);
  const rows = find("films");
  const present = new Map([...rows.children].map((row) => [Number(row.dataset.film), row]));
  for (const film of films) {
    const row = present.get(film.id) ?? rows.appendChild(newRow(film, choose));
    present.delete(film.id);
    row.querySelector("input").checked = film === selected;
    const [kind, text] = stateOf(film, film === selected);
    row.dataset.kind = kind;
    row.querySelector(".state").textContent = text;
  }
  for (const row of present.values()) row.remove();
}

function newRow(film, choose) {
  const input = make("input", { type: "radio", name: "film" });
  input.addEventListener("change", () => choose(film));
  const name = make("span", { className: "name" }, film.file.name || "pasted image");
  const row = make("label", { className: "film" }, input, name, make("span", { className: "state" }));
  row.dataset.film = film.id;
  return row;
}

function stateOf(film, selected) {
  if (film.error) return ["failed", film.error.message];
  if (!film.findings) return ["waiting", film.asked || selected ? "being read…" : "waiting"];
  if (film.findings.warnings.length)
    return ["warned", film.findings.familiar ? `${summary(film.findings)}, with a warning` : summary(film.findings)];
  return [called(film.findings).length ? "called" : "quiet", summary(film.findings)];
}
