/* The model card: what the model was trained and measured on, and its limits. Any part of it may be absent. */

import { count, draw, find, make, percent, sentence, spoken } from "./elements.js";

// AUROC on the axis of the plots: below 0.5 a model is worse than chance.
const AXIS = [0.4, 1];
const PLOT_PX = { width: 132, height: 18 };

/** Fills the panel. model: the answer of /v1/model. */
export function showCard(model) {
  const { card } = model;
  const has = (part, show) => (card[part] ? [show(card[part])] : []);
  find("card-title").textContent = `Model card: ${model.name} version ${model.version}`;
  find("card-content").replaceChildren(
    ...has("intended_use", (use) => make("p", { className: "callout" }, use)),
    ...has("differs_here", (differs) => make("p", { className: "callout" }, differs)),
    ...has("recalibrated", (fit) => make("p", { className: "callout" }, fitted(fit))),
    ...has("limits", (limits) => section("Limits", list(limits))),
    ...has("test_auroc", (auroc) =>
      section("AUROC per finding, test split", note(card.recalibrated ? intervals : points), aurocTable(auroc, card.thresholds?.youden)),
    ),
    ...has("unsure", (unsure) =>
      section(
        `Answers at an error rate of ${percent(unsure.error_rate)}, ${card.recalibrated?.site ?? "test split"}`,
        note(promise(card.recalibrated)),
        answerTable(unsure.findings),
      ),
    ),
    ...has("tested_at", (tests) =>
      section("Tested at other sites", note(elsewhere), make("ul", {}, tests.map(testedAt))),
    ),
    ...has("subgroups", (rows) => section("Mean AUROC per subgroup, test split", note(intervals), subgroupTable(rows))),
    ...has("data", (data) => section("Data", facts(dataFacts(data)), dataTable(data))),
    ...has("localisation", (rows) =>
      section("Heat maps against boxes, test split", note(pointing), localisationTable(rows)),
    ),
    ...has("gate", (gate) => section(`Gate ${gate.passed === null ? "not asked" : gate.passed ? "passed" : "failed"}`, list(gateWords(gate)))),
    section("Model", facts(modelFacts(model))),
  );
}

const intervals = "The 95% intervals are over patients; the dotted line is chance.";
const points = `${intervals} Thresholds are Youden's, from the validation split.`;
const elsewhere =
  "Mean AUROC, and its change from the test split over the findings that both define, with 95% intervals over patients.";
const fitted = ({ site, version, fitted_to: fit, held_out: rest }) =>
  `This is version ${version} with calibration and thresholds for ${site}, fitted to ${fit.images} films of ` +
  `${fit.patients} patients. Thresholds, sensitivity and specificity below are those of ${rest.images} films of ` +
  `${rest.patients} other patients there; AUROCs are of the test split, as before.`;
const promise = (fit) =>
  "Shares of the films with a finding that are answered absent, and of those without it that are answered present: " +
  "each is at most the error rate for films of new patients like those that the bounds were chosen on, on average over " +
  `such choices. These were ${fit ? `films of ${fit.site}` : "the validation split, which also chose the epoch"}. ` +
  "All films of a patient together count as one there. The 95% intervals are over patients.";
const pointing =
  "Pointing game: how often the strongest place of the heat map lies in a known box. By chance: how often " +
  "a random place would.";

const gateWords = ({ reasons, few_patients: few = [] }) =>
  [...reasons, ...few.map((name) => `too few patients to say much about ${spoken(name)}`)].map(sentence);

const section = (title, ...content) => make("section", {}, make("h3", {}, title), ...content);
const list = (items) =>
  make(
    "ul",
    {},
    items.map((item) => make("li", {}, item)),
  );
const note = (text) => make("p", { className: "dim" }, text);

function facts(pairs) {
  return make(
    "dl",
    {},
    pairs.filter(([, value]) => value).map(([term, value]) => [make("dt", {}, term), make("dd", {}, value)]),
  );
}

/** columns: headings; rows: lists of text or elements, the first of which is the row's heading. */
function table(columns, rows) {
  if (!rows.length) return make("p", {}, "Not measured.");
  const head = make(
    "tr",
    {},
    columns.map((column) => make("th", { scope: "col" }, column)),
  );
  const body = rows.map(([name, ...cells]) =>
    make(
      "tr",
      {},
      make("th", { scope: "row" }, name),
      cells.map((cell) => make("td", {}, cell)),
    ),
  );
  const whole = make("table", {}, make("thead", {}, head), make("tbody", {}, body));
  // Wide tables scroll inside their frame, by keyboard too.
  const frame = make("div", { className: "wide", tabIndex: 0 }, whole);
  frame.setAttribute("role", "region");
  frame.setAttribute("aria-label", `${columns[0]} table`);
  return frame;
}

const decimal = (value) => (value === null || value === undefined ? "–" : value.toFixed(3));
const share = (value) => (value === null || value === undefined ? "–" : percent(value));
/** An interval; a subgroup of few patients may have none. */
const range = ({ low, high }) => (low === null ? "–" : `${low.toFixed(3)} to ${high.toFixed(3)}`);

const shareWithin = ({ value, low, high }) =>
  value === null ? "–" : low === null ? percent(value) : `${percent(value)} (${percent(low)} to ${percent(high)})`;

/** A dot with its interval on the AXIS; empty if nothing was measured. */
function plot(value, low, high) {
  const { width, height } = PLOT_PX;
  const place = (auroc) => 6 + ((Math.max(auroc, AXIS[0]) - AXIS[0]) / (AXIS[1] - AXIS[0])) * (width - 12);
  const middle = height / 2;
  const line = (x1, x2, className) => draw("line", { x1, x2, y1: middle, y2: middle, class: className });
  const chance = draw("line", { x1: place(0.5), x2: place(0.5), y1: 2, y2: height - 2, class: "chance" });
  const svg = draw("svg", { ...PLOT_PX, viewBox: `0 0 ${width} ${height}`, "aria-hidden": true, class: "plot" });
  svg.append(line(place(AXIS[0]), place(1), "axis"), chance);
  if (value === null) return svg;
  if (low !== null) svg.append(line(place(low), place(high), "interval"));
  svg.append(draw("circle", { cx: place(value), cy: middle, r: 3.5 }));
  return svg;
}

function aurocTable(aurocs, point) {
  return table(
    ["Finding", "AUROC", "Interval", "0.4 … 1", "Threshold", "Sensitivity", "Specificity"],
    Object.entries(aurocs).map(([name, auroc]) => [
      spoken(name),
      auroc.value === null ? "not measured" : decimal(auroc.value),
      range(auroc),
      plot(auroc.value, auroc.low, auroc.high),
      share(point?.probability[name]),
      share(point?.sensitivity?.[name]),
      share(point?.specificity?.[name]),
    ]),
  );
}

const answerTable = (findings) =>
  table(
    ["Finding", "Absent below", "Present above", "Present, answered absent", "Absent, answered present", "Unsure"],
    Object.entries(findings).map(([name, facts]) => [
      spoken(name),
      facts.absent_below === null ? "never" : percent(facts.absent_below),
      facts.present_above === null ? "never" : percent(facts.present_above),
      facts.absent_below === null ? "never" : shareWithin(facts.present_answered_absent),
      facts.present_above === null ? "never" : shareWithin(facts.absent_answered_present),
      shareWithin(facts.unsure),
    ]),
  );

/** One external test, see inference/external/record.py. */
const testedAt = ({ site, mode, at, images, patients, findings, auroc, findings_of_change: moving, change, overlap }) => {
  const count = `${images.toLocaleString("en")} films of ${patients.toLocaleString("en")} patients`;
  const over = (ends, number) => `${decimal(ends.value)} (${range(ends)}) over ${number} findings`;
  const value = auroc.value === null ? "no AUROC" : over(auroc, findings);
  const moved = change && change.value !== null ? `, change ${over(change, moving)}` : "";
  return make("li", {}, `${site}, ${mode.toUpperCase()}, ${at.slice(0, 10)}: ${value}${moved}; ${count}; ${overlap}`);
};

function subgroupTable(subgroups) {
  return table(
    ["Group", "AUROC", "Interval", "0.4 … 1", "Images", "Patients"],
    subgroups.map((row) => [
      `${spoken(row.attribute)} ${row.group}`,
      decimal(row.auroc),
      range(row),
      plot(row.auroc, row.low, row.high),
      row.images.toLocaleString("en"),
      row.patients.toLocaleString("en"),
    ]),
  );
}

function dataTable({ images, patients, positives }) {
  const splits = Object.keys(images);
  const row = (title, counts) => [title, ...splits.map((split) => (counts[split] ?? 0).toLocaleString("en"))];
  const findings = Object.keys(Object.values(positives)[0] ?? {});
  return table(
    ["Number of", ...splits],
    [
      row("images", images),
      row("patients", patients),
      ...findings.map((name) =>
        row(`with ${spoken(name)}`, Object.fromEntries(splits.map((split) => [split, positives[split]?.[name]]))),
      ),
    ],
  );
}

const localisationTable = (localisation) =>
  table(
    ["Finding", "Images", "Pointing game", "By chance", "Mean IoU"],
    Object.entries(localisation).map(([name, row]) => [
      spoken(name),
      row.images.toLocaleString("en"),
      share(row.pointing_game),
      share(row.chance),
      decimal(row.mean_iou),
    ]),
  );

const dataFacts = (data) => [
  ["Data", data.title],
  ["Source", data.source],
  ["Delta table", `${data.delta_table_id}, version ${data.delta_version}`],
  ["Split", data.split_rule && `by patient, rule ${data.split_rule}`],
];

/** What the training split had of age, sex and view; null for a model that takes pixels alone. */
function trainedOn(had) {
  if (!had) return null;
  const { low, high, unknown } = had.age_years;
  const ages = low === null ? "no known age" : `ages of ${low} to ${high} years`;
  const counts = (name) =>
    Object.entries(had[name])
      .map(([word, films]) => `${word} ${films.toLocaleString("en")}`)
      .join(", ");
  return `${ages} (unknown on ${count(unknown, "film")}); films by sex: ${counts("sex")}; by view: ${counts("view")}`;
}

const modelFacts = ({ card, mode, loaded_at }) => [
  ["Network", card.model?.network],
  ["Input", card.model?.input.replaceAll("`", "")],
  ["Trained on", trainedOn(card.model?.attributes?.trained_on)],
  ["Precision", mode.toUpperCase()],
  ["Loaded", new Date(loaded_at).toLocaleString()],
  ["Run", card.model?.run_id],
  ["Commit", card.model?.commit],
  ["Started from", card.model?.ancestors?.map(({ source }) => source).join(", which started from ")],
  ["Speed", card.speed && `${card.speed.latency_ms.toFixed(1)} ms per image on ${card.speed.machine.cpu}`],
];
