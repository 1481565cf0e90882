/* What the page asks of the service. Names of files stay in the browser: every upload is called "image". */

import { storedKey, wantKey } from "./key.js";

/** An answer that is no answer: what happened, and what to do next. status 0: the service was not reached. */
export class ServiceError extends Error {
  /** results: of /v1/predict where no file is usable, with the reason of each. */
  constructor(status, message, next = "", results = []) {
    super(message);
    Object.assign(this, { status, next, results });
  }

  /** Whether the same request may be answered later; what is no image, or too large, stays so. */
  get passing() {
    return this.status !== 413 && this.status !== 422;
  }
}

/** One image with its film, heat maps and known boxes. */
export function explain(file, signal) {
  const body = new FormData();
  body.append("file", file, "image");
  return ask("v1/explain", { method: "POST", body, signal }, file.size);
}

/** The findings of several images, in their order: {results: [findings or {index, error}]}. */
export function predict(files) {
  const body = new FormData();
  for (const file of files) body.append("files", file, "image");
  return ask(
    "v1/predict",
    { method: "POST", body },
    files.reduce((sum, file) => sum + file.size, 0),
  );
}

/** Which model answers, and its card. */
export const askModel = () => ask("v1/model", { cache: "no-store" }, 0);

async function ask(path, options, bytes) {
  for (;;) {
    const key = storedKey();
    const { ok, status, answer } = await reach(path, { ...options, headers: key ? { "X-API-Key": key } : {} }, bytes);
    if (ok) return answer;
    if (status === 401) {
      // Another request may have asked for the key meanwhile.
      if (key !== storedKey() || (await wantKey(key ? "The service refuses this key." : ""))) continue;
      throw new ServiceError(status, `the service ${key ? "refuses this" : "wants an API"} key`, "enter the key");
    }
    throw new ServiceError(
      status,
      answer.error ?? `the service answers with status ${status}`,
      answer.next,
      answer.results,
    );
  }
}

async function reach(path, options, bytes) {
  try {
    const response = await fetch(path, { credentials: "omit", ...options });
    return { ok: response.ok, status: response.status, answer: await response.json() };
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (error instanceof SyntaxError) throw new ServiceError(0, "something else than the service answers here");
    // A service that refuses an upload half way closes the connection, which looks the same from here.
    const size = bytes > 1e7 ? `, or it refuses ${Math.round(bytes / 1e6)} MB` : "";
    throw new ServiceError(0, `the service cannot be reached${size}`, "see that it is running, then try again");
  }
}
