// The HTTP API as the page uses it. A refusal is an error with the server's own words and status.

export class Refusal extends Error {
  constructor(status, kind, message) {
    super(message);
    this.status = status;
    this.kind = kind;
  }

  /** What to tell a person. */
  get words() {
    if (this.status === 403) return `You may not do this. ${this.message}`;
    if (this.status === 409) return `This card is out of date, nothing was done. ${this.message}`;
    return this.message;
  }
}

let csrf = "";
let onSignedOut = () => {};

/** What to do when the session has ended. */
export function whenSignedOut(act) {
  onSignedOut = act;
}

async function ask(method, path, body) {
  let answer;
  try {
    answer = await fetch(path, {
      method,
      credentials: "same-origin",
      headers: {
        Accept: "application/json",
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
        ...(method === "GET" ? {} : { "X-CSRF-Token": csrf }),
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new Refusal(0, "unreachable", "The server does not answer. Is `pilotage serve` running?");
  }
  const value = (answer.headers.get("Content-Type") ?? "").includes("json") ? await answer.json() : await answer.text();
  if (answer.ok) return value;
  if (answer.status === 401 && path !== "/api/sign-in" && path !== "/api/me") onSignedOut();
  const found = value?.error ?? {};
  throw new Refusal(answer.status, found.kind ?? "error", found.message ?? `The server said ${answer.status} to ${method} ${path}.`);
}

export const get = (path) => ask("GET", path);
export const post = (path, body = {}) => ask("POST", path, body);

/** Who is signed in, or null. Keeps the token that every writing request carries. */
export async function whoAmI() {
  try {
    const me = await get("/api/me");
    csrf = me.csrf;
    return me;
  } catch (refusal) {
    if (refusal.status === 401) return null;
    throw refusal;
  }
}

/** A path with each part escaped: at`/api/proposals/${id}/vote`. */
export function at(parts, ...values) {
  return parts.reduce((path, part, n) => path + part + (n < values.length ? encodeURIComponent(values[n]) : ""), "");
}
