/* The images that were given, in their order, and what the model said of them. */

import { count, find, make } from "./elements.js";
import { called, summary } from "./findings.js";
import { explain, predict, ServiceError } from "./service.js";

export const MAX_FILMS = 500;
// Of one request: it has to arrive within the service's limits on time and size.
const FILES_AT_ONCE = 8;
const BYTES_AT_ONCE = 32e6;
// With their films and heat maps, some MB each; of the others only the findings stay.
const ANSWERS_KEPT = 8;

export const films = [];
const kept = []; // films with a whole answer, the last looked at at the end

let num = 0;

/** Takes files in; returns their films. */
export function addFilms(files) {
  const added = files.map((file) => ({ id: ++num, file, findings: null, answer: null, error: null, asked: false }));
  films.push(...added);
  return added;
}

export function removeFilm(film) {
  films.splice(films.indexOf(film), 1);
  if (kept.includes(film)) kept.splice(kept.indexOf(film), 1);
}

/** Forgets what was said, such as by another model. */
export function forgetAnswers() {
  kept.length = 0;
  for (const film of films) Object.assign(film, { findings: null, answer: null, error: null, asked: false });
}

/** Forgets the failures that may have passed. */
export function forgetTroubles() {
  for (const film of films) if (film.error?.passing) Object.assign(film, { error: null, asked: false });
}

/** Asks for film, heat maps and boxes of one image. Throws AbortError where `signal` ends it. */
export async function readFilm(film, signal) {
  film.asked = true;
  try {
    film.answer = film.findings = await explain(film.file, signal);
    keep(film);
  } catch (error) {
    if (error.name === "AbortError") film.asked = film.findings !== null;
    else film.error = error;
    throw error;
  }
}

/** Keeps this whole answer as the last one looked at. */
export function keep(film) {
  if (kept.includes(film)) kept.splice(kept.indexOf(film), 1);
  kept.push(film);
  while (kept.length > ANSWERS_KEPT) kept.shift().answer = null;
}

let summarising = false;

/** Asks for the findings of all that nobody has asked for, several at a time. changed: called before and after each. */
export async function summariseFilms(belongs, changed) {
  if (summarising) return;
  summarising = true;
  for (let group = nextGroup(belongs); group.length; group = nextGroup(belongs)) {
    for (const film of group) film.asked = true;
    changed();
    try {
      place(await predict(group.map((film) => film.file)), group);
    } catch (error) {
      if (!(error instanceof ServiceError)) throw error;
      for (const film of group) film.error = error;
      place(error, group);
    }
    changed();
  }
  summarising = false;
}

function place({ results }, group) {
  for (const result of results) {
    const film = group[result.index];
    if (result.error) film.error = new ServiceError(422, result.error);
    else film.findings = result;
  }
}

function nextGroup(belongs) {
  const group = [];
  let bytes = 0;
  for (const film of films.filter((one) => !one.asked && belongs(one))) {
    bytes += film.file.size;
    if (group.length && (group.length === FILES_AT_ONCE || bytes > BYTES_AT_ONCE)) break;
    group.push(film);
  }
  return group;
}

/** Draws the list where there is more than one image. choose: called with a film. */
export function drawStrip(selected, choose) {
  find("strip").hidden = films.length < 2;
  find("strip-title").textContent = count(films.length, "image");
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
