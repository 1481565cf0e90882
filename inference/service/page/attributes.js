/* Age, sex and view of the selected image, for a model that takes them: what a person gives, and what the model got. */

import { find, make } from "./elements.js";

const FIELDS = ["age", "sex", "view"];
const COLUMNS = { age: "age_years", sex: "sex", view: "view" };
const UNKNOWN = "unknown";

/** Shows the fields if the model takes them. taken: as /v1/model describes it, or null. */
export function offerFields(taken) {
  find("attributes").hidden = !taken;
  if (!taken) return;
  for (const name of ["sex", "view"]) {
    const words = ["", ...taken.codes[name], UNKNOWN];
    const field = find(name);
    if (field.options.length === words.length) continue;
    field.replaceChildren(...words.map((word) => make("option", { value: word }, word || "from file")));
  }
  const { low, high } = taken.trained_on.age_years;
  find("trained-ages").textContent =
    low === null ? "No age was known in the training." : `The training had ages of ${years(low)} to ${years(high)} years.`;
}

/** Puts what was given for an image into the fields. */
export function fillFields(given) {
  for (const name of FIELDS) find(name).value = given[name] ?? "";
}

/** Shows what the model got; without an answer, nothing. */
export function showUsed(answer) {
  const got = answer?.attributes;
  find("used").textContent = got ? `Read with ${FIELDS.map((name) => used(name, got)).join(", ")}.` : "";
}

/** changed: called with what the fields give, whenever a person has changed one: {age: "64"}. */
export function listen(changed) {
  const tell = () =>
    changed(Object.fromEntries(FIELDS.map((name) => [name, find(name).value.trim()]).filter(([, value]) => value)));
  for (const name of FIELDS) find(name).addEventListener("change", tell);
  find("attributes").addEventListener("submit", (event) => event.preventDefault());
}

const years = (age) => Number(age.toFixed(2));

function used(name, got) {
  const value = got[COLUMNS[name]];
  const from = got.given.includes(COLUMNS[name]) ? " (given)" : value === null ? "" : " (from the file)";
  return `${name} ${value === null ? UNKNOWN : name === "age" ? `${years(value)} years` : value}${from}`;
}
