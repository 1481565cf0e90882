/* The images that were given, in order, and what the model said about them. */

import { explain, predict, ServiceError } from "./service.js";

export const MAX_FILMS = 500;
// Limits of one request, so that it arrives in time and its answers appear soon; the service may allow less.
const FILES_AT_ONCE = 8;
const MB_AT_ONCE = 32;
// More than a form adds to each of its files.
const FORM_MB = 0.001;
// Answers kept with films and heat maps, some MB each; of the others only the findings are kept.
const ANSWERS_KEPT = 8;

const NOTHING_SAID = { findings: null, answer: null, error: null, asked: false };

export const films = [];
const kept = []; // films with a whole answer, the most recently viewed at the end

let num = 0;
let limits = { files: 1, file_mb: Infinity, request_mb: Infinity }; // until the service has reported its limits

export const setLimits = (told) => (limits = told);

/** Adds files and returns their films. */
export function addFilms(files) {
  const added = files.map((file) => ({ id: ++num, file, given: {}, ...NOTHING_SAID }));
  films.push(...added);
  return added;
}

export function removeFilm(film) {
  films.splice(films.indexOf(film), 1);
  if (kept.includes(film)) kept.splice(kept.indexOf(film), 1);
}

/** Forgets all answers, such as those of another model. takesGiven: whether that model takes what was given. */
export function forgetAnswers(takesGiven) {
  kept.length = 0;
  for (const film of films) Object.assign(film, NOTHING_SAID, { given: takesGiven ? { ...film.given } : {} });
}

/** Gives other age, sex and view for an image, whose answer is of no use any more. */
export function give(film, given) {
  if (kept.includes(film)) kept.splice(kept.indexOf(film), 1);
  Object.assign(film, NOTHING_SAID, { given });
}

/** Forgets the failures that may be over by now. */
export function forgetTroubles() {
  for (const film of films)
    if (film.error?.passing) Object.assign(film, { error: null, asked: film.findings !== null });
}

/** Asks for film, heat maps and boxes of one image. Throws AbortError if `signal` ends the request. */
export async function readFilm(film, signal) {
  film.asked = true;
  try {
    const fault = sizeFault(film.file);
    if (fault) throw fault;
    film.answer = film.findings = await explain(film.file, film.given, signal);
    film.error = null; // which may come from a group of films that it was sent with
    keep(film);
  } catch (error) {
    if (error.name === "AbortError") film.asked = film.findings !== null;
    else film.error = error;
    throw error;
  }
}

/** Keeps this whole answer as the most recently viewed one. */
export function keep(film) {
  if (kept.includes(film)) kept.splice(kept.indexOf(film), 1);
  kept.push(film);
  while (kept.length > ANSWERS_KEPT) kept.shift().answer = null;
}

let summarising = false;

/** Asks for the findings of all films not asked about yet, several at a time. changed: called whenever they change. */
export async function summariseFilms(belongs, changed) {
  if (summarising) return;
  summarising = true;
  for (let group = nextGroup(belongs); group.length; group = nextGroup(belongs)) {
    for (const film of group) film.asked = true;
    changed();
    const sent = group.map((film) => film.given);
    const stands = (film) => film.given === sent[group.indexOf(film)];
    try {
      place(
        await predict(
          group.map((film) => film.file),
          group[0].given,
        ),
        group,
        stands,
      );
    } catch (error) {
      if (!(error instanceof ServiceError)) throw error;
      for (const film of group.filter((one) => !one.findings && stands(one))) film.error = error;
      place(error, group, stands);
    }
  }
  summarising = false;
  changed();
}

/** stands: whether a film's age, sex and view are still those that it was sent with, and the model the same. */
function place({ results }, group, stands) {
  for (const result of results) {
    const film = group[result.index];
    if (!stands(film)) continue;
    if (result.error) film.error = new ServiceError(422, result.error);
    else film.findings = result;
  }
}

function nextGroup(belongs) {
  const group = [];
  let room_mb = Math.min(MB_AT_ONCE, limits.request_mb);
  for (const film of films.filter((one) => !one.asked && belongs(one))) {
    film.error = sizeFault(film.file);
    if (film.error) {
      film.asked = true;
      continue;
    }
    if (group.length && !sameGiven(group[0], film)) continue;
    room_mb -= sizeInForm(film.file);
    if (group.length && (group.length === Math.min(FILES_AT_ONCE, limits.files) || room_mb < 0)) break;
    group.push(film);
  }
  return group;
}

const sameGiven = (one, other) =>
  new URLSearchParams(one.given).toString() === new URLSearchParams(other.given).toString();

const sizeInForm = (file) => file.size / 1e6 + FORM_MB;

/** The error for a file that is too large, by itself or for one request; null if it is not. */
function sizeFault(file) {
  if (file.size / 1e6 <= limits.file_mb && sizeInForm(file) <= limits.request_mb) return null;
  const most_mb = Math.min(limits.file_mb, limits.request_mb);
  return new ServiceError(413, `the file is larger than ${most_mb} MB`, { next: "send a smaller file" });
}
