/* The API key: asked for in a dialog, kept until the tab is closed. */

import { find } from "./elements.js";

const PLACE = "chexscale-api-key";

let asking = null;
let declined = false; // by Cancel; afterwards only a button opens the dialog again

/** The key that was given, or null. */
export function storedKey() {
  const key = sessionStorage.getItem(PLACE);
  if (!key || !faultOf(key)) return key;
  sessionStorage.removeItem(PLACE);
  return null;
}

/** Asks for the key when a request lacks one, unless the person has declined. */
export const wantKey = async (reason) => !declined && askForKey(reason);

/** Resolves to whether a key was given; several requests that lack one share the dialog. */
export function askForKey(reason = "") {
  asking ??= new Promise((resolve) => {
    const dialog = find("key");
    const input = find("key-value");
    find("key-reason").textContent = reason;
    find("key-cancel").onclick = () => dialog.close();
    dialog.querySelector("form").onsubmit = (event) => {
      event.preventDefault();
      const key = input.value.trim();
      const fault = faultOf(key);
      find("key-reason").textContent = fault;
      if (fault) return input.select();
      sessionStorage.setItem(PLACE, key);
      dialog.close("given");
    };
    dialog.returnValue = input.value = "";
    dialog.onclose = () => {
      asking = null;
      input.value = "";
      declined = dialog.returnValue !== "given";
      resolve(!declined);
    };
    dialog.showModal();
  });
  return asking;
}

/** Why this cannot be a key, or "". A header that is not ASCII, such as by an invisible space, cannot even be sent. */
function faultOf(key) {
  const other = key.match(/[^ -~]/u);
  if (!other) return "";
  const code = other[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
  const place = `character ${other.index + 1} of this one is U+${code}`;
  return `Keys are plain ASCII, but ${place}. Copy the key again, or type it.`;
}
