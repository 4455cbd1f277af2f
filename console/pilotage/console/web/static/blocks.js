// What commands show: text, pairs, tables, stories and charts, as values from the server.
import { h, moment, plain, standing } from "./dom.js";
import { linked, outward, refLink } from "./links.js";
import { drawing } from "./drawings.js";
import { sentence } from "./now.js";
import { t } from "./words.js";

/** One block as an element. */
export function block(value) {
  switch (value?.kind) {
    case "text": return h("p", { class: "block" }, linked(plain(value.text)));
    case "pairs": return pairs(value);
    case "table": return table(value);
    case "story": return story(value.title, value.steps);
    case "chart": return chart(value);
    case "timeline": return timeline(value);
    case "lines": return h("section", { class: "block" }, h("h4", {}, t(value.title)), value.lines.length ? h("ul", {}, value.lines.map((line) => h("li", {}, sentence(line)))) : h("p", { class: "empty" }, t(value.empty)));
    case "raw": return h("details", { class: "block", open: true }, h("summary", {}, plain(value.title)), h("pre", { tabindex: "0" }, plain(value.text)));
    case "card": return h("p", { class: "block" }, refLink(`proposal:${value.card?.proposal_id}`));
    default: return h("pre", { class: "block", tabindex: "0" }, JSON.stringify(value, null, 1));
  }
}

function cell(value) {
  if (value === null || value === undefined || value === "") return h("span", { class: "faint" }, "–");
  if (typeof value === "object") return value.at ? moment(value.at) : refLink(value.ref, value.text);
  return outward(String(value)) ?? linked(plain(value));
}

const STANDINGS = new Set(["status", "state", "verdict", "outcome"]);
const SHORT = 18; // characters up to which a cell stays on one line
const LONG = 40; // characters from which a cell is prose and gets the room

function table(value) {
  if (!value.rows.length) return h("p", { class: "block empty" }, plain(value.empty || "Nothing to show."));
  const head = value.columns.map((name) => h("th", { scope: "col" }, name));
  const body = value.rows.map((row) => h("tr", {}, row.map((each, n) => {
    const words = typeof each === "object" && each ? each.text : String(each ?? "");
    const shown = STANDINGS.has(value.columns[n]) && typeof each === "string" ? standing(each) : cell(each);
    const kind = typeof each === "number" ? "number" : words.length > LONG ? "prose" : words.length <= SHORT ? "short" : null;
    return h("td", { class: kind, "data-column": value.columns[n] }, h("div", {}, shown));
  })));
  return h("div", { class: "block wide", role: "region", "aria-label": value.title || "table", tabindex: "0" },
    h("table", { class: "stacks" }, value.title && h("caption", {}, value.title), h("thead", {}, h("tr", {}, head)), h("tbody", {}, body)));
}

function pairs(value) {
  return h("section", { class: "block" }, value.title && h("h4", {}, value.title),
    h("dl", { class: "pairs" }, Object.entries(value.pairs).map(([key, each]) =>
      h("div", {}, h("dt", {}, key), h("dd", {}, STANDINGS.has(key) && typeof each === "string" ? standing(each) : cell(each))))));
}

/** A story: one line for each step, in order of time. */
export function story(title, steps) {
  if (!steps?.length) return h("p", { class: "block empty" }, "Nothing is recorded about it.");
  return h("section", { class: "block" }, title && h("h4", {}, linked(plain(title))),
    h("ol", { class: "story" }, steps.map((step) => h("li", {},
      moment(step.at), standing(step.step), h("span", { class: "actor" }, step.actor ?? ""),
      h("p", {}, linked(plain(step.words)))))));
}

function timeline(value) {
  const box = h("figure", { class: "block drawing" }, h("figcaption", {}, plain(value.title)));
  drawing("/api/draw/timeline", { lanes: value.lanes, title: value.title ?? "", offset: new Date().getTimezoneOffset() })
    .then((picture) => box.append(picture), (refusal) => box.append(h("p", {}, refusal.message)));
  return box;
}

function chart(value) {
  const box = h("figure", { class: "block drawing" }, h("figcaption", {}, plain(value.title)));
  const rows = value.x.map((x, n) => [x, value.unit ? `${value.y[n]} ${value.unit}` : value.y[n]]);
  const numbers = h("details", {}, h("summary", {}, "The numbers"),
    table({ title: "", columns: ["", value.unit || "value"], rows, empty: "No numbers." }));
  drawing("/api/draw/chart", { x: value.x, y: value.y, unit: value.unit ?? "", style: value.style ?? "bar", title: value.title })
    .then((picture) => box.append(picture, numbers), (refusal) => box.append(h("p", {}, refusal.message), numbers));
  return box;
}
