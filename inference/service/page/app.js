/* The page of the service: images that are dropped, chosen or pasted are read by the model and shown. */

import { fillFields, listen, offerFields, showUsed } from "./attributes.js";
import { showCard } from "./card.js";
import { count, find, make, sentence } from "./elements.js";
import {
  addFilms,
  films,
  forgetAnswers,
  forgetTroubles,
  give,
  keep,
  MAX_FILMS,
  readFilm,
  removeFilm,
  setLimits,
  summariseFilms,
} from "./films.js";
import { called, showFindings, summary } from "./findings.js";
import { askForKey } from "./key.js";
import { askModel, ServiceError } from "./service.js";
import { drawStrip } from "./strip.js";
import { clearFilm, showFilm, showHeat } from "./viewer.js";

const LOOK_AT_MODEL_MS = 15_000;
// A person who steps through the list with the arrow keys does not want every image read.
const SETTLE_MS = 150;

let model = null; // as /v1/model last described it; kept during an outage, so that another model afterwards is noticed
let lost = false; // whether the last look at the model failed
let selected = null; // the film that is shown
let reading = new AbortController(); // ends the request for the previously selected film
let settling = 0;

function add(files) {
  notify("left-out", "");
  const room = MAX_FILMS - films.length;
  const added = addFilms(files.slice(0, room));
  if (files.length > room)
    notify("left-out", `The list holds at most ${count(MAX_FILMS, "image")}, so ${files.length - room} were left out.`);
  if (!added.length) return;
  select(added[0]);
  document.querySelector("#films :checked").parentElement.scrollIntoView({ block: "nearest" });
}

function select(film) {
  reading.abort();
  reading = new AbortController();
  clearTimeout(settling);
  selected = film;
  if (film) fillFields(film.given);
  show();
  if (film?.answer) keep(film);
  else if (film && !film.error) settling = setTimeout(read, films.length > 1 ? SETTLE_MS : 0, film, reading.signal);
  summarise();
}

async function read(film, signal) {
  try {
    await readFilm(film, signal);
  } catch (error) {
    // Another film was selected in the meantime.
    if (error.name === "AbortError") return summarise();
    if (!(error instanceof ServiceError)) throw error;
  }
  show();
  announce(film);
  if (film.answer && title(film.answer.model) !== (model && title(model))) lookAtModel();
}

const summarise = () => summariseFilms((film) => film !== selected, strip);

const strip = () => drawStrip(selected, select);

/** Draws what is known so far of the selected film. */
function show() {
  strip();
  clearFilm();
  if (find("problem").contains(document.activeElement)) find("results").focus(); // its button disappears
  find("warnings").hidden = find("familiarity").hidden = find("problem").hidden = true;
  find("findings").replaceChildren();
  const film = selected;
  document.body.dataset.state = !film ? "empty" : film.answer ? "answered" : film.error ? "failed" : "busy";
  find("results").setAttribute("aria-busy", document.body.dataset.state === "busy");
  find("about").textContent = film ? film.file.name || "pasted image" : "";
  showUsed(film?.answer);
  if (film?.answer) showAnswer(film);
  else if (film?.error) showProblem(film.error);
}

function showAnswer(film) {
  const chosen = called(film.answer)[0]?.name ?? null;
  showFilm(film.answer, film.file, model?.square !== "pad");
  showHeat(chosen);
  showFindings(film.answer, chosen, showHeat);
}

function showProblem(error) {
  const [label, tryAgain] = error.status === 401 ? ["Enter the key", enterKey] : ["Try again", readAgain];
  const again = make("button", { type: "button", onclick: tryAgain }, label);
  const next = error.next ? [make("p", {}, sentence(error.next))] : [];
  find("problem").replaceChildren(make("h3", {}, "Not read"), make("p", {}, sentence(error.message)), ...next, again);
  find("problem").hidden = false;
}

function readAgain() {
  selected.error = null;
  select(selected);
}

function readAllAgain() {
  const selectedToo = selected?.error?.passing;
  forgetTroubles();
  if (selectedToo) select(selected);
  else summarise();
}

async function enterKey() {
  if (!(await askForKey())) return;
  document.querySelector(".actions .choose").focus(); // the button that was pressed disappears
  lookAtModel();
}

function announce(film) {
  if (film.answer)
    say(`${called(film.answer).length ? `${film.answer.error_rate ? "Present" : "Called"}: ` : ""}${summary(film.answer)}. ${film.answer.warnings.join(". ")}`);
}

const say = (text) => (find("said").textContent = text);

function notify(place, text) {
  find(place).hidden = !text;
  find(place).textContent = text;
}

const title = ({ name, version, mode, package: fixed }) =>
  [name, `version ${version}`, mode.toUpperCase(), ...(fixed ? [`fixed package ${fixed.slice(0, 12)}`] : [])].join(" · ");

async function lookAtModel() {
  try {
    const described = await askModel();
    const moved = model && title(model) !== title(described);
    model = described;
    setLimits(model.limits);
    find("model").textContent = title(model);
    find("enter-key").hidden = true;
    offerFields(model.attributes);
    find("about-unsure").hidden = !model.unsure;
    notify("notice", [aboutRegistry(model), model.card.differs_here].filter(Boolean).join(" "));
    if (moved) {
      forgetAnswers(!!model.attributes);
      notify("left-out", `Version ${model.version} of the model is now in use: the images are being read again.`);
      select(selected);
    } else if (lost) readAllAgain();
    lost = false;
  } catch (error) {
    if (!(error instanceof ServiceError)) throw error;
    lost = true;
    find("enter-key").hidden = error.status !== 401;
    find("model").textContent = error.status === 503 ? "no model yet" : "no model";
    notify("notice", [error.message, error.next].filter(Boolean).map(sentence).join(" "));
  }
  find("open-card").disabled = !model?.card;
}

function aboutRegistry({ version, registry: { reachable, since, reason } }) {
  if (reachable) return reason ? sentence(`version ${version} is still in use: ${reason}`) : "";
  const time = since ? ` since ${new Date(since).toLocaleString()}` : "";
  return `The registry cannot be reached${time}. Version ${version} is still in use.`;
}

/** Adds the files of a drop or a paste. */
function addFrom(transfer) {
  const items = [...transfer.items].filter((item) => item.kind === "file");
  const files = items.filter((item) => !item.webkitGetAsEntry?.()?.isDirectory).map((item) => item.getAsFile());
  add(files.filter(Boolean));
  if (files.length < items.length) notify("left-out", "Folders are not read. Give the files in them instead.");
}

listen((given) => {
  if (!selected) return;
  give(selected, given);
  select(selected);
});
for (const button of document.querySelectorAll(".choose"))
  button.addEventListener("click", () => find("files").click());
find("files").addEventListener("change", (event) => {
  add([...event.target.files]);
  event.target.value = ""; // the same file can be chosen again
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
addEventListener("dragleave", (event) => event.relatedTarget ?? document.body.classList.remove("dragging"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  addFrom(event.dataTransfer);
});
addEventListener("paste", (event) => addFrom(event.clipboardData));

find("remove").addEventListener("click", () => {
  const place = films.indexOf(selected);
  removeFilm(selected);
  select(films[Math.min(place, films.length - 1)] ?? null);
  if (find("strip").hidden) find("results").focus(); // the button disappears with the list
});
find("remove-all").addEventListener("click", () => {
  while (films.length) removeFilm(films[0]);
  select(null);
  document.querySelector(".actions .choose").focus();
});

find("retry").addEventListener("click", () => {
  readAllAgain();
  document.querySelector("#films :checked").focus(); // the button disappears
});

find("enter-key").addEventListener("click", enterKey);
find("open-card").addEventListener("click", () => {
  showCard(model);
  find("card").showModal();
});
find("close-card").addEventListener("click", () => find("card").close());

lookAtModel();
setInterval(() => document.hidden || lookAtModel(), LOOK_AT_MODEL_MS);
