/* The findings of one image, called ones first, each with its probability and its threshold. */

import { count, find, make, percent, sentence, spoken } from "./elements.js";

const GROUPS = [
  ["called", (finding) => finding.present === true],
  ["below threshold", (finding) => finding.present === false],
  ["without a threshold", (finding) => finding.present === null],
];

/** Called findings first; within each group, by how near the probability comes to its threshold. */
export function inOrder(findings) {
  const nearness = ({ probability, threshold }) => (threshold === null ? probability : probability / threshold);
  return GROUPS.flatMap(([, belongs]) => findings.filter(belongs).sort((a, b) => nearness(b) - nearness(a)));
}

export const called = (answer) => inOrder(answer.findings).filter((finding) => finding.present);

/** One sentence, for the list of images and for screen readers. */
export function summary(answer) {
  if (!answer.familiar) return "unlike the training data";
  const names = called(answer).map(({ name, probability }) => `${spoken(name)} ${percent(probability)}`);
  return names.length ? names.join(", ") : "nothing called";
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
  const heading = num ? `${count(num, "finding")} called` : "No finding called";
  const groups = GROUPS.map(([title, belongs]) => [title, inOrder(answer.findings).filter(belongs)]);
  return make(
    "fieldset",
    { className: "findings" },
    make("legend", {}, heading),
    make("p", { className: "dim" }, `Thresholds: operating point ${answer.operating_point}`),
    groups
      .filter(([, findings]) => findings.length)
      .map(([title, findings]) => [
        make("p", { className: "group" }, title),
        findings.map((finding) => row(finding, finding.name === chosen, choose)),
      ]),
  );
}

function row({ name, probability, threshold, present }, checked, choose) {
  const input = make("input", { type: "radio", name: "finding", value: name, checked });
  input.addEventListener("change", () => choose(name));
  const fill = make("span", { className: "fill" });
  fill.style.width = `${100 * probability}%`;
  const mark = threshold === null ? null : make("span", { className: "mark" });
  if (mark) mark.style.left = `${100 * threshold}%`;
  const limit = threshold === null ? "no threshold" : `threshold ${percent(threshold)}`;
  return make(
    "label",
    { className: present ? "finding called" : "finding" },
    input,
    make("span", { className: "name" }, spoken(name)),
    make("span", { className: "value" }, percent(probability)),
    make("span", { className: "bar" }, fill, mark),
    make("span", { className: "limit" }, limit, present ? make("span", { className: "unseen" }, ", called") : null),
  );
}
