/* The film, with the heat map of one finding and the known boxes over it. */

import { find, make, spoken } from "./elements.js";
import { isLike } from "./likeness.js";

let shown = null; // the answer whose film is shown
let original = null; // address of the file itself, if the browser can show it
let finding = null; // the finding whose heat map is shown

/** Shows the film of an answer. file: as it was given; stretched: whether the model sees it with other proportions. */
export async function showFilm(answer, file, stretched) {
  clearFilm();
  shown = answer;
  find("controls").hidden = false;
  find("box-count").textContent = answer.boxes.length ? `(${answer.boxes.length})` : "(none)";
  find("boxes-on").disabled = !answer.boxes.length;
  drawLayers();
  // The file itself is sharper than what the model sees, and is shown in the same place.
  const address = await openOriginal(file, answer, stretched);
  if (shown !== answer) return void (address && URL.revokeObjectURL(address));
  original = address;
  find("model-view").hidden = !original;
  drawLayers();
}

/** Shows where the network looked for this finding; null: no heat map. */
export function showHeat(name) {
  finding = name;
  drawLayers();
}

export function clearFilm() {
  if (original) URL.revokeObjectURL(original);
  shown = original = finding = null;
  find("controls").hidden = true;
  find("model-view").hidden = true;
  for (const id of ["film", "heat"]) find(id).removeAttribute("src");
  drawLayers();
}

/** Address of the file if the browser shows it as the service decodes it; otherwise null. */
async function openOriginal(file, answer, stretched) {
  if (stretched && answer.width_px !== answer.height_px) return null;
  const address = URL.createObjectURL(file);
  const [image, square] = [address, answer.image].map((src) => make("img", { src }));
  try {
    await Promise.all([image.decode(), square.decode()]);
    const sameSize = image.naturalWidth === answer.width_px && image.naturalHeight === answer.height_px;
    if (sameSize && isLike(image, square)) return address;
  } catch {
    // A format that only the service reads, such as DICOM: the model's film is shown.
  }
  URL.revokeObjectURL(address);
  return null;
}

function drawLayers() {
  const film = find("film");
  film.hidden = find("caption").hidden = !shown;
  if (shown) {
    const asModel = !original || find("as-model").checked;
    const source = asModel ? shown.image : original;
    if (film.src !== source) film.src = source;
    film.alt = asModel ? "The film as the model sees it" : "The film";
    find("caption").textContent =
      `${shown.width_px} × ${shown.height_px} pixels` +
      (shown.seen ? ", outlined what the model sees" : asModel ? ", as the model sees it" : "");
  }
  drawHeat(shown?.maps[finding]);
  clipHeat();
  drawBoxes(shown?.boxes ?? []);
  find("seen").hidden = !shown?.seen;
  if (shown?.seen) place(find("seen"), shown.seen);
}

function drawHeat(map) {
  const heat = find("heat");
  heat.hidden = find("legend").hidden = !map || !find("heat-on").checked;
  find("heat-on").disabled = find("opacity").disabled = !map;
  find("hint").hidden = !!map || !Object.keys(shown?.maps ?? {}).length;
  if (!map) return;
  if (heat.src !== map.png) heat.src = map.png;
  heat.alt = `Heat map of ${spoken(finding)}: where the network looked`;
  heat.style.opacity = find("opacity").value / 100;
  const nothing = map.high <= 0;
  find("legend-scale").hidden = nothing;
  find("legend-text").textContent = nothing
    ? `Nothing is painted, because no place of this film speaks for ${spoken(finding)}.`
    : `Shows where the network looked for ${spoken(finding)}, not that it is there.` +
      (shown.exact_maps ? "" : " It compares places with each other: the probability is not composed of them.");
}

/** The model's square is padded, so over a film in its own proportions the map is cut off where the film ends. */
function clipHeat() {
  if (!shown || find("film").src !== original) return void (find("heat").style.clipPath = "none");
  const side = Math.max(shown.width_px, shown.height_px);
  const [x, y] = [shown.width_px, shown.height_px].map((length) => (50 * (side - length)) / side);
  find("heat").style.clipPath = `inset(${y}% ${x}%)`;
}

function drawBoxes(boxes) {
  const layer = find("boxes");
  layer.hidden = !boxes.length || !find("boxes-on").checked;
  layer.replaceChildren(
    ...boxes.map((box) => {
      const outline = make(
        "div",
        { className: box.finding === finding ? "box chosen" : "box" },
        make("span", {}, spoken(box.finding)),
      );
      place(outline, box);
      return outline;
    }),
  );
}

/** Lays an outline over the film. box: shares of the square's side. */
function place(outline, box) {
  for (const side of ["left", "top", "width", "height"]) outline.style[side] = `${100 * box[side]}%`;
}

for (const id of ["heat-on", "boxes-on", "as-model"]) find(id).addEventListener("change", drawLayers);
find("opacity").addEventListener("input", () => {
  find("opacity-value").textContent = `${find("opacity").value}%`;
  drawLayers();
});
