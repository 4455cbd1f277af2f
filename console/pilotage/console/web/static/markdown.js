// The little markdown that answers use, as elements. HTML in it is text, pictures are text, and a link leads only
// into Prefect's UI or this page: a log line can talk a model into any sentence, so no sentence may do anything.
import { h } from "./dom.js";
import { linked, trusted } from "./links.js";

const INLINE = /(`[^`\n]+`)|\*\*([^*\n]+)\*\*|\[([^\]\n]*)\]\(([^()\s]+)\)/g;

function inline(words) {
  const parts = [];
  let from = 0;
  for (const found of words.matchAll(INLINE)) {
    parts.push(linked(words.slice(from, found.index)));
    const [whole, code, bold, label, url] = found;
    if (code) parts.push(h("code", {}, linked(code.slice(1, -1))));
    else if (bold) parts.push(h("strong", {}, linked(bold)));
    else if (trusted(url)) parts.push(h("a", { href: url, rel: "noopener noreferrer" }, label || url));
    else parts.push(`${label} (${url})`);
    from = found.index + whole.length;
  }
  return [...parts, linked(words.slice(from))];
}

const ROW = /^\s*\|(.+)\|\s*$/;
const cells = (line) => ROW.exec(line)[1].split("|").map((cell) => cell.trim());

/** The text as a list of elements. */
export function markdown(source) {
  const lines = String(source ?? "").split("\n");
  const out = [];
  for (let n = 0; n < lines.length;) {
    const line = lines[n];
    const take = (fits) => {
      const taken = [];
      while (n < lines.length && fits(lines[n])) taken.push(lines[n++]);
      return taken;
    };
    if (/^\s*```/.test(line)) {
      n += 1;
      const code = take((next) => !/^\s*```/.test(next));
      n += 1;
      out.push(h("pre", { tabindex: "0" }, h("code", {}, code.join("\n"))));
    } else if (/^#{1,6}\s/.test(line)) {
      out.push(h("h4", {}, inline(line.replace(/^#+\s+/, ""))));
      n += 1;
    } else if (/^\s*[-*]\s/.test(line)) {
      out.push(h("ul", {}, take((next) => /^\s*[-*]\s/.test(next)).map((item) => h("li", {}, inline(item.replace(/^\s*[-*]\s+/, ""))))));
    } else if (/^\s*\d+[.)]\s/.test(line)) {
      out.push(h("ol", {}, take((next) => /^\s*\d+[.)]\s/.test(next)).map((item) => h("li", {}, inline(item.replace(/^\s*\d+[.)]\s+/, ""))))));
    } else if (ROW.test(line)) {
      const rows = take((next) => ROW.test(next)).filter((row) => !/^[\s|:-]+$/.test(row)).map(cells);
      out.push(h("div", { class: "wide" }, h("table", {},
        h("thead", {}, h("tr", {}, rows[0].map((cell) => h("th", { scope: "col" }, inline(cell))))),
        h("tbody", {}, rows.slice(1).map((row) => h("tr", {}, row.map((cell) => h("td", {}, inline(cell)))))))));
    } else if (/^\s*>/.test(line)) {
      out.push(h("blockquote", {}, inline(take((next) => /^\s*>/.test(next)).map((next) => next.replace(/^\s*>\s?/, "")).join(" "))));
    } else if (line.trim() === "") {
      n += 1;
    } else {
      const words = take((next) => next.trim() !== "" && !/^\s*(```|[-*]\s|\d+[.)]\s|>|#{1,6}\s|\|.*\|\s*$)/.test(next));
      if (words.length === 0) words.push(lines[n++]);
      out.push(h("p", {}, words.map((each, index) => [index ? h("br") : null, inline(each)])));
    }
  }
  return out;
}
