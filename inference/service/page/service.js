/* The page's requests to the service. File names stay in the browser: every upload is called "image". */

import { count, find, sentence } from "./elements.js";
import { storedKey, wantKey } from "./key.js";

// Statuses of troubles that may be over soon, and the waits before each new try, unless the service names another time.
const SHORT_TROUBLES = [0, 429, 503];
const WAITS_S = [1, 2, 4];
const LONGEST_WAIT_S = 60;

/** A request that failed: what happened, and what to do next. status 0: the service was not reached. */
export class ServiceError extends Error {
  /** results: the reason for each file, if /v1/predict finds none usable; wait_s: seconds that the service asks for. */
  constructor(status, message, { next = "", results = [], wait_s = null } = {}) {
    super(message);
    Object.assign(this, { status, next, results, wait_s });
  }

  /** Whether the same request may succeed later; a file that is not an image, or too large, never will. */
  get passing() {
    return this.status !== 413 && this.status !== 422;
  }
}

/** The findings of one image, with its film, heat maps and known boxes. given: {age, sex, view}, or some of them. */
export function explain(file, given, signal) {
  const body = new FormData();
  body.append("file", file, "image");
  return askPatiently(withGiven("v1/explain", given), { method: "POST", body, signal }, file.size);
}

/** The findings of several images, in their order: {results: [findings or {index, error}]}. given: for all of them. */
export function predict(files, given) {
  const body = new FormData();
  for (const file of files) body.append("files", file, "image");
  return askPatiently(
    withGiven("v1/predict", given),
    { method: "POST", body },
    files.reduce((sum, file) => sum + file.size, 0),
  );
}

/** Which model answers, and its card. */
export const askModel = () => ask("v1/model", { cache: "no-store" }, 0);

function withGiven(path, given) {
  const query = new URLSearchParams(given).toString();
  return query ? `${path}?${query}` : path;
}

async function askPatiently(path, options, bytes) {
  for (const usual_s of WAITS_S)
    try {
      return await ask(path, options, bytes);
    } catch (error) {
      const wait_s = error.wait_s ?? usual_s;
      if (!SHORT_TROUBLES.includes(error.status) || wait_s > LONGEST_WAIT_S) throw error;
      find("trouble").textContent = sentence(`${error.message}: trying again in ${count(wait_s, "second")}`);
      await pause(wait_s, options.signal).finally(() => (find("trouble").textContent = ""));
    }
  return ask(path, options, bytes);
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    setTimeout(resolve, 1000 * seconds);
    signal?.addEventListener("abort", () => reject(signal.reason));
  });
}

async function ask(path, options, bytes) {
  for (;;) {
    const key = storedKey();
    const headers = key ? { "X-API-Key": key } : {};
    const { ok, status, answer, wait_s } = await reach(path, { ...options, headers }, bytes);
    if (ok) return answer;
    if (status === 401) {
      answer.error = key ? "the service refuses this key" : "the service needs an API key";
      answer.next = ""; // the page has a button for it
      // Another request may have asked for the key in the meantime.
      if (key !== storedKey() || (await wantKey(key ? sentence(answer.error) : ""))) continue;
    }
    const { error = `the service answers with status ${status}`, next, results } = answer;
    throw new ServiceError(status, error, { next, results, wait_s });
  }
}

async function reach(path, options, bytes) {
  try {
    const response = await fetch(path, { credentials: "omit", ...options });
    const wait_s = Number(response.headers.get("Retry-After")) || null;
    return { ok: response.ok, status: response.status, answer: await response.json(), wait_s };
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (error instanceof SyntaxError) throw new ServiceError(0, "something other than the service answers here");
    // A service that refuses an upload half way closes the connection, which looks the same from here.
    const size = bytes > 1e7 ? `, or it refuses ${Math.round(bytes / 1e6)} MB` : "";
    const next = "check that it is running, then try again";
    throw new ServiceError(0, `the service cannot be reached${size}`, { next });
  }
}
