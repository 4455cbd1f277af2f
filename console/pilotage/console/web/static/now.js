// The landing page: what is broken, what needs the reader, what was done meanwhile, what comes next. One sentence each.
import { get } from "./api.js";
import { fill, h, keeping, moment, plain } from "./dom.js";
import { button } from "./card.js";
import { refLink, split } from "./links.js";
import { parts, t } from "./words.js";

const EVERY = 15_000;

export async function nowView(view) {
  const body = h("div", { class: "now" }, h("p", { class: "faint loading", role: "status" }, t("Reading…")));
  const draw = async () => {
    let found;
    try {
      found = (await get("/api/show/now")).blocks;
    } catch (refusal) {
      fill(body, h("p", { class: "says", role: "alert" }, refusal.words ?? refusal.message));
      return;
    }
    keeping(body, () => fill(body, found.map(part)));
  };
  fill(view, h("header", { class: "head" }, h("h1", { tabindex: "-1" }, t("Now")), button(t("Read again"), draw)), body);
  await draw();
  const again = setInterval(() => { if (!document.hidden) draw(); }, EVERY);
  let due = 0;
  return {
    receive(event) {
      if (event.type !== "step") return;
      clearTimeout(due);
      due = setTimeout(draw, 1500);
    },
    leave() { clearInterval(again); clearTimeout(due); },
  };
}

function part(block) {
  return h("section", { "aria-label": t(block.title) }, h("h2", {}, t(block.title)),
    block.lines.length ? h("ul", {}, block.lines.map((line) => h("li", {}, sentence(line)))) : h("p", { class: "empty" }, t(block.empty)));
}

/** A sentence from the server, each value in it a link where it leads somewhere. */
export function sentence({ words, values, refs }) {
  const shown = Object.fromEntries(Object.entries(values ?? {}).map(([name, value]) => {
    const said = typeof value === "object" ? moment(value.at) : plain(value);
    return [name, refs?.[name] ? leading(refs[name], said) : said];
  }));
  const said = parts(words, shown);
  const rest = Object.entries(refs ?? {}).filter(([name]) => !(name in shown)).map(([, ref]) => [" ", leading(ref, t("Look at it"))]);
  return [said, rest];
}

function leading(ref, said) {
  const [kind, key] = split(ref);
  if (kind === "view") return h("a", { href: `#/${key}` }, said);
  return said instanceof Node ? h("a", { href: `#/${kind}/${encodeURIComponent(key)}` }, said) : refLink(ref, said);
}
