// Where things can be looked at: on this page, and in Prefect's own UI.
import { h, plain } from "./dom.js";

let prefect = "";

/** Tells where Prefect's UI is; anything but http(s) is not linked. */
export function prefectAt(url) {
  prefect = /^https?:\/\//.test(url ?? "") ? url.replace(/\/+$/, "") : "";
}

const HERE = { run: "#/run/", proposal: "#/proposal/", incident: "#/incident/", thread: "#/chat/", deployment: "#/about/" };
const THERE = { run: "/runs/flow-run/", deployment: "/deployments/deployment/", pool: "/work-pools/work-pool/", flow: "/flows/flow/" };
const OUT = new Set(["deployment", "pool", "queue"]); // what only Prefect has a page of

/** A link to what `kind:key` names, or its words alone when there is nowhere to go. */
export function refLink(ref, words) {
  const [kind, key] = split(ref);
  const shown = plain(words || key);
  if (OUT.has(kind)) return prefectLink(kind, key, shown);
  return HERE[kind] && key ? h("a", { href: HERE[kind] + encodeURIComponent(key) }, shown) : h("span", {}, shown);
}

/** A link into Prefect's UI, or the words alone when we do not know where that is. */
export function prefectLink(kind, key, words) {
  const shown = plain(words || "in Prefect");
  const path = pathOf(kind, String(key ?? ""));
  return prefect && path ? out(prefect + path, shown) : h("span", {}, words ? shown : "");
}

function pathOf(kind, key) {
  if (!key) return "";
  const at = key.indexOf("/");
  if (kind === "queue") return at > 0 ? `${THERE.pool}${encodeURIComponent(key.slice(0, at))}/queue/${encodeURIComponent(key.slice(at + 1))}` : "";
  return THERE[kind] ? THERE[kind] + encodeURIComponent(key) : "";
}

const out = (href, shown) => h("a", { href, target: "_blank", rel: "noopener noreferrer", class: "out" },
  shown, h("span", { "aria-hidden": "true" }, " ↗"), h("span", { class: "unseen" }, " (Prefect, new tab)"));

/** An address of Prefect's UI as a link; of anything else nothing. */
export function outward(words) {
  return prefect !== "" && words.startsWith(`${prefect}/`) && /^[\w:/.%~-]+$/.test(words) ? out(words, "open") : null;
}

/** Whether a URL that somebody else wrote may become a link: Prefect's UI or this page, nothing else. */
export function trusted(url) {
  return (prefect !== "" && url.startsWith(`${prefect}/`)) || /^#\/[\w/%.-]*$/.test(url);
}

/** Opens the evidence that a key names, in the answer in which it is cited. */
function toEvidence(event) {
  event.preventDefault();
  const target = event.currentTarget.closest(".turn")?.querySelector(`li[data-key="${event.currentTarget.dataset.key}"]`);
  target?.querySelector("details")?.setAttribute("open", "");
  target?.scrollIntoView({ block: "nearest" });
  target?.focus();
}

export function split(ref) {
  const at = String(ref ?? "").indexOf(":");
  return at < 0 ? ["", String(ref ?? "")] : [ref.slice(0, at), ref.slice(at + 1)];
}

/** As much of an id as people need to know it again. */
export const short = (kind, id) => plain(id).slice(0, /^[pi]-/.test(id) || kind === "thread" ? 14 : 8);

/** The words with every citation key, run, proposal and incident id in them made a link. */
export function linked(words) {
  const ids = /([0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12})|\b(p-[0-9a-f]{12})\b|\b(i-[0-9a-f]{12})\b|\[(e[0-9a-f]{4})\]/g;
  const parts = [];
  let from = 0;
  for (const found of String(words ?? "").matchAll(ids)) {
    parts.push(words.slice(from, found.index));
    if (found[4]) {
      parts.push(h("a", { href: "#", class: "cite", "data-key": found[4], onclick: toEvidence }, `[${found[4]}]`));
      from = found.index + found[0].length;
      continue;
    }
    const kind = found[1] ? "run" : found[2] ? "proposal" : "incident";
    parts.push(refLink(`${kind}:${found[0]}`, found[1] ? `${found[0].slice(0, 8)}…` : found[0]));
    from = found.index + found[0].length;
  }
  return [...parts, String(words ?? "").slice(from)];
}
