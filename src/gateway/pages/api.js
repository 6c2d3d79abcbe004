// How pages ask the front: every change has a name of its own, so that asking again is safe, whichever front answers.

const PATIENCE_MS = 20000;
const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 1500;

/** A refusal, in the front's own words. */
export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail || "the shop did not answer as it should");
    this.status = status;
    this.reason = problem.reason || "";
  }
}

/** Visible ASCII that nobody can guess. */
function drawName() {
  const bytes = crypto.getRandomValues(new Uint8Array(24));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Another front, or the same a little later, may do it: nothing is said of the request itself. */
const isPassing = (status) => [502, 503, 504].includes(status);

/**
 * Sends one request until it is answered. `answered` hears of the headers of each answer.
 * Returns the answer's JSON, or null if it has none.
 */
export async function ask(method, path, { body, headers = {}, answered = () => {} } = {}) {
  const own = { ...headers };
  if (method !== "GET") own["Idempotency-Key"] = drawName();
  if (body !== undefined) own["Content-Type"] = "application/json";
  const request = { method, headers: own, body: body === undefined ? undefined : JSON.stringify(body), credentials: "same-origin" };
  const deadline = performance.now() + PATIENCE_MS;
  for (let wait = FIRST_PAUSE_MS; ; wait = Math.min(wait * 2, LONGEST_PAUSE_MS)) {
    const left = Math.max(deadline - performance.now(), 1);
    let problem = { detail: "the shop cannot be reached" };
    let status = 0;
    try {
      const response = await fetch(path, { ...request, signal: AbortSignal.timeout(left) });
      answered(response.headers);
      const text = await response.text();
      const json = text ? JSON.parse(text) : null;
      if (response.ok) return json;
      [status, problem] = [response.status, json || {}];
    } catch (error) {
      if (!(error instanceof TypeError || error instanceof SyntaxError || error.name === "TimeoutError")) throw error;
    }
    const isLast = performance.now() + wait >= deadline;
    if (isLast || !(status === 0 || isPassing(status))) throw new Refused(status, problem);
    await pause(wait);
  }
}

/** An element with these attributes and children. Texts stay texts, whatever stands in them. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "onclick") made.addEventListener("click", value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

/** An amount in words. */
export const money = (minor, currency) => new Intl.NumberFormat(undefined, { style: "currency", currency }).format(minor / 100);

/** The element of this id. */
export const at = (id) => document.getElementById(id);
