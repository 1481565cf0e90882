/* Whether a picture that the browser decoded is the film as the service decoded it. */

import { make } from "./elements.js";

const SIDE = 32;
// Of a film that is the same turned or mirrored, the two are only nearly equally like.
const TOLERANCE = 0.001;
// A film whose bits the browser does not scale is at most a quarter as bright.
const MIN_BRIGHTNESS = 1 / 3;

/**
 * Whether `picture` shows the film of `square`: not turned, mirrored or inverted, and not far darker.
 *
 * Browsers differ in what they follow of a file, such as the orientation of a PNG; then a heat map would lie in the
 * wrong place. Both are images that are loaded; square: the film in its own proportions within the model's square.
 */
export function isLike(picture, square) {
  const shown = greys(picture);
  const expected = greys(square);
  if (Math.max(...shown) < MIN_BRIGHTNESS * Math.max(...expected)) return false;
  const [likeness, ...others] = layings().map((from) => correlation(from.map((place) => shown[place]), expected));
  return others.every((other) => likeness >= other - TOLERANCE);
}

/** Greys of the image, fitted into a square of SIDE x SIDE. */
function greys(image) {
  const canvas = make("canvas", { width: SIDE, height: SIDE });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  const scale = SIDE / Math.max(image.naturalWidth, image.naturalHeight);
  const [width, height] = [scale * image.naturalWidth, scale * image.naturalHeight];
  context.fillRect(0, 0, SIDE, SIDE); // black
  context.drawImage(image, (SIDE - width) / 2, (SIDE - height) / 2, width, height);
  const { data } = context.getImageData(0, 0, SIDE, SIDE);
  return Array.from({ length: SIDE * SIDE }, (_, place) => data[4 * place] + data[4 * place + 1] + data[4 * place + 2]);
}

/** Where each pixel comes from, in the eight ways to lay down a square; the first is as it is. */
function layings() {
  const places = Array.from({ length: SIDE * SIDE }, (_, place) => [place % SIDE, Math.floor(place / SIDE)]);
  const ends = [false, true];
  const ways = ends.flatMap((turned) => ends.flatMap((across) => ends.map((down) => [turned, across, down])));
  return ways.map(([turned, across, down]) =>
    places.map(([column, row]) => {
      const [x, y] = [across ? SIDE - 1 - column : column, down ? SIDE - 1 - row : row];
      return turned ? x * SIDE + y : y * SIDE + x;
    }),
  );
}

/** -1 to 1; 0 if one of the two has only one grey. */
function correlation(one, other) {
  const [a, b] = [one, other].map((values) => {
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    return values.map((value) => value - mean);
  });
  const product = (x, y) => x.reduce((sum, value, place) => sum + value * y[place], 0);
  return product(a, b) / (Math.sqrt(product(a, a) * product(b, b)) || 1);
}
