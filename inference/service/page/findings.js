/* The findings of one image, called ones first, each with its probability and its threshold. A model with an error rate
   says present, unsure or absent instead. */

import { count, find, make, percent, sentence, spoken } from "./elements.js";

const GROUPS = [
  ["called", (finding) => finding.present === true],
  ["below threshold", (finding) => finding.present === false],
  ["without a threshold", (finding) => finding.present === null],
];
const ANSWERS = ["present", "unsure", "absent"].map((word) => [word, (finding) => finding.answer === word]);
const groupsOf = (findings) => (findings.some(({ answer }) => answer) ? ANSWERS : GROUPS);

/** Called findings first; within each group, by how near the probability comes to its threshold. */
export function inOrder(findings) {
  const nearness = ({ probability, threshold }) => (threshold === null ? probability : probability / threshold);
  return groupsOf(findings).flatMap(([, belongs]) => findings.filter(belongs).sort((a, b) => nearness(b) - nearness(a)));
}

const isCalled = ({ answer, present }) => (answer ? answer === "present" : present);

export const called = (answer) => inOrder(answer.findings).filter(isCalled);

const unsure = (answer) => inOrder(answer.findings).filter((finding) => finding.answer === "unsure");

/** One sentence, for the list of images and for screen readers. */
export function summary(answer) {
  if (!answer.familiar) return "unlike the training data";
  const names = (findings) =>
    findings.map(({ name, probability }) => `${spoken(name)} ${percent(probability)}`).join(", ");
  const found = names(called(answer)) || `nothing ${answer.error_rate ? "present" : "called"}`;
  return unsure(answer).length ? `${found}; unsure: ${names(unsure(answer))}` : found;
}

/** Shows an answer. chosen: name of the finding that is selected, or null; choose: called with a finding's name. */
export function showFindings(answer, chosen, choose) {
  showWarnings(answer);
  find("findings").replaceChildren(answer.familiar ? list(answer, chosen, choose) : nothingSaid());
  find("familiarity").hidden = !answer.familiar;
  if (!answer.familiar) return;
  const [distance, limit] = [answer.distance, answer.distance_threshold].map((value) => value.toFixed(1));
  find("familiarity").textContent =
    `Distance from the training data: ${distance}. Films at a distance of up to ${limit} count as familiar.`;
}

function showWarnings(answer) {
  const warnings = find("warnings");
  warnings.hidden = !answer.warnings.length;
  if (warnings.hidden) return;
  const title = answer.familiar
    ? `Check the film${answer.attributes ? ", age, sex and view" : ""} before you trust this answer`
    : "The model does not know films like this";
  warnings.replaceChildren(
    make("h3", {}, title),
    ...answer.warnings.map((warning) => make("p", {}, sentence(warning))),
  );
}

const nothingSaid = () =>
  make(
    "p",
    { className: "nothing" },
    "No probabilities are shown, because the network has not learned from such images. Give a frontal chest film " +
      "like those that the model card describes.",
  );

function list(answer, chosen, choose) {
  const num = called(answer).length;
  const [word, rate] = answer.error_rate ? ["present", answer.error_rate] : ["called", null];
  const heading = [
    num ? `${count(num, "finding")} ${word}` : `No finding ${word}`,
    ...(unsure(answer).length ? [`${unsure(answer).length} unsure`] : []),
  ].join(", ");
  const meaning =
    rate &&
    `Error rate ${percent(rate)}: at most this share of films with a finding is answered absent, and of films without ` +
      "it present (see the model card). In the hatched part of a bar the model is unsure.";
  const groups = groupsOf(answer.findings).map(([title, belongs]) => [title, inOrder(answer.findings).filter(belongs)]);
  return make(
    "fieldset",
    { className: "findings" },
    make("legend", {}, heading),
    meaning ? make("p", { className: "dim" }, meaning) : null,
    make("p", { className: "dim" }, `Thresholds: operating point ${answer.operating_point}`),
    groups
      .filter(([, findings]) => findings.length)
      .map(([title, findings]) => [
        make("p", { className: "group" }, title),
        findings.map((finding) => row(finding, finding.name === chosen, choose)),
      ]),
  );
}

/** The part of the bar in which the answer is unsure; null without an error rate. */
function unsurePart({ answer, absent_below: low, present_above: high }) {
  if (!answer) return null;
  const part = make("span", { className: "unsure-part" });
  part.style.left = `${100 * (low ?? 0)}%`;
  part.style.right = `${100 * (1 - (high ?? 1))}%`;
  return part;
}

/** Such as `unsure from 12.0% to 48.0%, threshold 34.0%`. */
function limits({ answer, absent_below: low, present_above: high, threshold }) {
  const limit = threshold === null ? "no threshold" : `threshold ${percent(threshold)}`;
  if (!answer) return limit;
  const [from, to] = [low === null ? "" : ` from ${percent(low)}`, high === null ? "" : ` to ${percent(high)}`];
  return `unsure${from}${to}${from || to ? "" : " always"}, ${limit}`;
}

function row(finding, checked, choose) {
  const { name, probability, threshold, answer } = finding;
  const input = make("input", { type: "radio", name: "finding", value: name, checked });
  input.addEventListener("change", () => choose(name));
  const fill = make("span", { className: "fill" });
  fill.style.width = `${100 * probability}%`;
  const mark = threshold === null ? null : make("span", { className: "mark" });
  if (mark) mark.style.left = `${100 * threshold}%`;
  const found = isCalled(finding);
  const said = answer ? make("span", { className: `answer-word ${answer}` }, answer) : null;
  const kinds = ["finding", found ? "called" : "", answer ? "answered" : ""].filter(Boolean).join(" ");
  return make(
    "label",
    { className: kinds },
    input,
    make("span", { className: "name" }, spoken(name)),
    make("span", { className: "value" }, said, percent(probability)),
    make("span", { className: "bar" }, fill, unsurePart(finding), mark),
    make(
      "span",
      { className: "limit" },
      limits(finding),
      found && !answer ? make("span", { className: "unseen" }, ", called") : null,
    ),
  );
}
