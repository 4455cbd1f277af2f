// Elements made of values. Every string becomes a text node: nothing that a run, a log or a model wrote is ever markup.

// As pilotage/telemetry/harmless.py does it for terminals, logs and models; one test holds both to the same cases.
const HIDDEN = /(?![\n\t\ufffd])[\p{C}\p{Zl}\p{Zp}\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\u{e0100}-\u{e01ef}]/gu;
const WIDE = /[\uff21-\uff3a\uff41-\uff5a\u{1d400}-\u{1d7ff}]/u;
const LATIN = /\p{Script=Latin}/u;
const LOOKALIKE = /[\p{Script=Greek}\p{Script=Cyrillic}\p{Script=Armenian}\p{Script=Cherokee}\p{Script=Coptic}\p{Script=Lisu}\p{Script=Georgian}]/u;
const SYMBOLS = /[μΔΩΣπσλθ]/u;

const code = (sign) => {
  const number = sign.codePointAt(0);
  return number < 0x100 ? `\\x${number.toString(16).padStart(2, "0")}` : `\\u{${number.toString(16)}}`;
};

function scriptOf(sign) {
  if (!/\p{L}/u.test(sign) || SYMBOLS.test(sign)) return "";
  if (WIDE.test(sign) || LOOKALIKE.test(sign)) return "lookalike";
  return LATIN.test(sign) ? "latin" : "";
}

function marked(word) {
  if (/^[\x00-\x7f]*$/.test(word)) return word;
  const signs = [...word];
  const latin = signs.filter((sign) => scriptOf(sign) === "latin").length;
  const others = signs.filter((sign) => scriptOf(sign) === "lookalike").length;
  if (!latin || !others) return word;
  const foreign = latin < others ? "latin" : "lookalike";
  return signs.map((sign) => (scriptOf(sign) === foreign ? code(sign) : sign)).join("");
}

/** The text with what is hidden made visible, and letters that pass for others in a word of two scripts. */
export function plain(value) {
  return String(value ?? "").replace(HIDDEN, code).replace(/[\p{L}\p{N}_]+/gu, marked);
}

/** An element. `props` are attributes, `on…` listeners, or `class`; children are nodes, strings, lists or nothing. */
export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "disabled" || name === "open") element[name] = value;
    else element.setAttribute(name, value === true ? "" : plain(value));
  }
  add(element, children);
  return element;
}

function add(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === undefined || child === null || child === false || child === "") continue;
    element.append(child instanceof Node ? child : plain(child));
  }
}

/** Puts these in the place of whatever is in the element. */
export function fill(element, ...children) {
  element.replaceChildren();
  add(element, children);
  return element;
}

/** Redraws inside the element; what was unfolded stays so, and the focus stays on what has the same words. */
export function keeping(root, draw) {
  const unfolded = new Set([...root.querySelectorAll("details[open] > summary")].map((each) => each.textContent));
  const held = root.contains(document.activeElement) ? document.activeElement : null;
  const named = (each) => `${each.tagName} ${each.textContent}`;
  const key = held && named(held);
  draw();
  for (const each of root.querySelectorAll("details > summary")) if (unfolded.has(each.textContent)) each.parentElement.open = true;
  if (held && !held.isConnected) [...root.querySelectorAll("a, button, summary, [tabindex]")].find((each) => named(each) === key)?.focus();
}

export const byId = (id) => document.getElementById(id);

/** Tells people who listen rather than look. */
export function announce(words) {
  byId("said").textContent = plain(words);
}

/** A moment in the reader's own time zone, with the full one as a tooltip. */
export function moment(iso) {
  const at = new Date(iso);
  if (!iso || Number.isNaN(at.getTime())) return plain(iso);
  const sameDay = at.toDateString() === new Date().toDateString();
  const shown = at.toLocaleString([], sameDay
    ? { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false }
    : { month: "short", day: "2-digit", hour: "2-digit", minute: "2-digit", hour12: false });
  return h("time", { datetime: at.toISOString(), title: `${full(at)} · ${distance(iso)}` }, shown);
}

/** A moment with its day and zone. */
export function full(at) {
  return at.toLocaleString(document.documentElement.lang || [], { dateStyle: "full", timeStyle: "long" });
}

/** How long until or since a moment, in the reader's language: "in 3 hr.", "5 min. ago". */
export function distance(iso) {
  const seconds = Math.round((new Date(iso).getTime() - Date.now()) / 1000);
  if (Number.isNaN(seconds)) return "";
  const long = Math.abs(seconds);
  const [size, unit] = long < 90 ? [1, "second"] : long < 5400 ? [60, "minute"] : long < 129600 ? [3600, "hour"] : [86400, "day"];
  return new Intl.RelativeTimeFormat(document.documentElement.lang || "en", { style: "short" }).format(Math.round(seconds / size), unit);
}

export function span(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 90) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 36 ? `${hours} h ${minutes % 60} min` : `${Math.round(hours / 24)} days`;
}

/** The word of a standing with a sign in front: words and shape say it, colour only helps. */
export function standing(word) {
  const raw = plain(word);
  const [sign, tone] = SIGNS[raw.toLowerCase()] ?? ["•", "plain"];
  return h("span", { class: `standing ${tone}` }, h("span", { "aria-hidden": "true" }, sign), " ", raw.replaceAll("_", " "));
}

const SIGNS = {
  allow: ["✓", "good"], allowed: ["✓", "good"], verified: ["✓", "good"], completed: ["✓", "good"], recovered: ["✓", "good"],
  approved: ["✓", "good"], approve: ["✓", "good"], closed: ["✓", "good"], injected: ["➤", "good"], ok: ["✓", "good"],
  needs_approval: ["◷", "wait"], filed: ["◷", "wait"], held: ["‖", "wait"], waiting: ["◷", "wait"], open: ["◷", "wait"], pending: ["◷", "wait"],
  scheduled: ["◷", "wait"], late: ["◷", "wait"], paused: ["‖", "wait"], running: ["▶", "plain"], admitted: ["➤", "plain"],
  deny: ["✕", "bad"], denied: ["✕", "bad"], failed: ["✕", "bad"], crashed: ["!", "bad"], refused: ["✕", "bad"], reject: ["✕", "bad"],
  rejected: ["✕", "bad"], unknown: ["?", "bad"], expired: ["⌛", "bad"], undone: ["↶", "wait"], cancelled: ["⊘", "bad"],
  replaced: ["✎", "wait"],
  found: ["◆", "plain"], forecast: ["◔", "plain"], proposed: ["✎", "plain"], judged: ["⚖", "plain"],
};
