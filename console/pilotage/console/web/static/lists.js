// A list that is longer than a page: filters, an order, a search, a true count, and every row within reach.
import { get } from "./api.js";
import { fill, h, plain } from "./dom.js";
import { number, t } from "./words.js";

/**
 * A list at `path`. `filters` are {name, label, choices} (choices may be a promise, [value, words] each) or {name, label}
 * for words; `row` makes one `li`. `said` tells what is shown, from the page; `empty` when nothing is there at all.
 * `start` are the first values. Returns {element, load, rows(), asked()}.
 */
export function listOf({ path, filters = [], row, empty, said, start = {}, label, fixed = {}, onRows = () => {} }) {
  const asked = { ...start };
  const list = h("ul", { class: "rows", "aria-label": label });
  const count = h("p", { class: "faint count", role: "status" });
  const more = h("button", { type: "button", hidden: true, onclick: () => page(next) }, t("Show more"));
  const says = h("p", { class: "says", role: "alert" });
  const form = h("form", { class: "filters", role: "search", "aria-label": t("Filter"), onsubmit: (event) => { event.preventDefault(); load(); } }, filters.map(field));
  const narrow = window.innerWidth <= 760;
  const folded = filters.length > 0 && (narrow ? h("details", { class: "more" }, h("summary", {}, t("Filter and order")), form) : form);
  const element = h("section", { class: "listing" }, folded, count, says, list, more);
  let next = "";
  let turn = 0;
  let values = [];

  function field(filter) {
    const change = () => { asked[filter.name] = control.value; load(); };
    const control = filter.choices
      ? h("select", { name: filter.name, onchange: change })
      : h("input", { type: "search", name: filter.name, maxlength: 200, autocomplete: "off", value: asked[filter.name] ?? "", onchange: change });
    if (filter.choices) Promise.resolve(filter.choices).then((choices) => {
      fill(control, choices.map(([value, words]) => h("option", { value }, words)));
      control.value = asked[filter.name] ?? "";
    });
    return h("label", {}, filter.label, control);
  }

  async function load() {
    values = [];
    list.setAttribute("aria-busy", "true");
    if (!list.firstChild) fill(count, h("span", { class: "loading" }, t("Reading…")));
    await page("");
  }

  async function page(after) {
    const mine = ++turn;
    fill(says);
    let found;
    try {
      const given = Object.entries({ ...fixed, ...asked, after }).filter(([, value]) => value !== "" && value !== undefined && value !== false);
      found = await get(`${path}?${new URLSearchParams(given)}`);
    } catch (refusal) {
      if (mine === turn) { fill(says, refusal.words ?? refusal.message); fill(count); list.removeAttribute("aria-busy"); }
      return;
    }
    if (mine !== turn) return; // it was asked again meanwhile
    next = found.next;
    const held = document.activeElement === more;
    values = after ? [...values, ...found.rows] : found.rows;
    const made = found.rows.map((each) => row(each));
    if (after) list.append(...made); else fill(list, made);
    list.removeAttribute("aria-busy");
    more.hidden = !next;
    const narrowed = filters.some((filter) => asked[filter.name] && asked[filter.name] !== start[filter.name]);
    fill(count, found.count === 0 ? (narrowed ? t("Nothing fits.") : empty) : said?.(found, values.length) ?? shown(values.length, found.count));
    if (held) made[0]?.querySelector("a, button, summary, input")?.focus();
    onRows(found, values);
  }

  /** Puts what is new above what is shown, which stays as it is, and counts again; `key` names a row. */
  async function fresh(key) {
    const given = Object.entries({ ...fixed, ...asked }).filter(([, value]) => value !== "" && value !== undefined && value !== false);
    const found = await get(`${path}?${new URLSearchParams(given)}`).catch(() => null);
    if (!found) return;
    const known = new Set(values.map(key));
    const added = found.rows.filter((each) => !known.has(key(each)));
    if (!values.length || (added.length && added.length === found.rows.length)) { await load(); return; }
    if ((asked.sort ?? "newest") === "newest") {
      list.prepend(...added.map((each) => row(each)));
      values = [...added, ...values];
    }
    fill(count, said?.(found, values.length) ?? shown(values.length, found.count));
  }

  return { element, load, fresh, rows: () => values, asked: () => ({ ...fixed, ...asked }), list, form };
}

/** How many of how many. */
export const shown = (some, count) => (some < count ? t("{some} of {count} shown", { some: number(some), count: number(count) }) : t("{count} in all", { count: number(count) }));

/** Choices of a filter out of their counts, with one for all. */
export const counted = (counts, all) => [["", all], ...Object.entries(counts ?? {}).map(([value, many]) => [value, `${plain(value)} (${number(many)})`])];
