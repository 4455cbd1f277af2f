// The views that are made of commands and drawings: queues, forecast, numbers, and one proposal.
import { at, get } from "./api.js";
import { block } from "./blocks.js";
import { button, cardView, refresh } from "./card.js";
import { fill, h, keeping, plain } from "./dom.js";
import { drawing } from "./drawings.js";
import { linked, short } from "./links.js";
import { cards } from "./state.js";
import { t } from "./words.js";

const title = (words, ...more) => h("header", { class: "head" }, h("h1", { tabindex: "-1" }, words), more);

/** The blocks of a reading command. Throws a Refusal. */
async function told(command, about = "") {
  return (await get(`/api/show/${command}${about ? `?about=${encodeURIComponent(about)}` : ""}`)).blocks;
}

/** The same as elements, or why there are none. What the view itself says and draws already is left out. */
async function shown(command, about = "", title = "", drawn = false) {
  try {
    return (await told(command, about)).filter((each) => !drawn || each.kind !== "chart").map((each) => block({ ...each, title: each.title === title ? "" : each.title }));
  } catch (refusal) {
    return [h("p", { class: "says" }, refusal.words ?? refusal.message)];
  }
}

/** A figure that the server draws, once it is drawn, or with what to say when it cannot. */
async function picture(caption, path, query) {
  const made = await drawing(path, undefined, query).catch((refusal) => h("p", { class: "faint" }, refusal.message));
  return h("figure", { class: "drawing" }, h("figcaption", {}, caption), made);
}

/**
 * A view made of commands and pictures, read again by the button, when something happened and every so many
 * milliseconds. With `ask` the reader chooses what the command is asked about, or how many hours the pictures show.
 */
function board(words, pictures, commands, { ask, every } = {}) {
  return async (view) => {
    const body = h("div", { class: "board" });
    let asked = 0;
    const select = ask && h("select", { onchange: () => draw() }, ask.choices.map((each) => h("option", { value: each }, each)));
    const draw = async () => {
      const mine = ++asked;
      const parts = (await Promise.all(commands.map((name) => shown(name, name === ask?.command ? select.value : "", words, pictures.length > 0)))).flat();
      const nothing = parts[0]?.classList.contains("empty"); // which is said once
      const drawn = nothing ? [] : await Promise.all(pictures.map(([caption, path, query]) =>
        picture(caption, path, { ...query, ...(ask?.query && { [ask.query]: select.value }) })));
      if (mine !== asked) return; // it was asked again meanwhile
      keeping(body, () => fill(body, drawn, parts));
    };
    fill(view, title(words, ask && h("label", { class: "beside" }, `${ask.words} `, select), button(t("Read again"), draw)), body);
    await draw();
    const again = every && setInterval(() => { if (!document.hidden) draw(); }, every);
    return { receive: delayed(() => draw()), leave() { clearInterval(again); } };
  };
}

/** Calls at most every two seconds, with the last event that asked for it. */
function delayed(act) {
  let due = 0;
  return (event) => {
    if (event.type !== "step") return;
    clearTimeout(due);
    due = setTimeout(() => act(event), 2000);
  };
}

export const queuesView = board("Queues", [["Runs by deployment", "/api/draw/runs", { offset: new Date().getTimezoneOffset() }]], ["status", "queue"],
  { ask: { query: "hours", words: "Hours drawn", choices: [2, 1, 8, 24, 168] }, every: 10_000 }); // runs come and go without any decision
export const forecastView = board("Forecast", [["The riskiest of the next runs", "/api/draw/forecast"]], ["forecast"], { every: 30_000 });
export const kpiView = board("Numbers", [], ["kpi"], { ask: { command: "kpi", words: "Days", choices: [7, 1, 30, 90] } });

/** One proposal: its card, its story, and the run that it is about. */
export async function proposalView(view, id) {
  const body = h("div", { class: "board" }, h("p", { class: "faint loading", role: "status" }, t("Reading…")));
  const draw = async () => {
    await refresh(id);
    const parts = cards.has(id) ? [cardView(id, { heading: "h2" }).element] : [];
    let blocks = [];
    try { blocks = await told("why", id); } catch (refusal) { parts.push(h("p", { class: "says" }, linked(plain(refusal.words ?? refusal.message)))); }
    const run = cards.get(id)?.run_id;
    if (run) parts.push(await picture(t("What happened to the run, in order of time"), at`/api/draw/run/${run}`, { offset: new Date().getTimezoneOffset() }));
    parts.push(...blocks.map(block));
    keeping(body, () => fill(body, parts));
  };
  fill(view, title(t("Proposal {id}", { id: short("proposal", id) }), button(t("Ask about it"), () => { location.hash = `#/chat?about=${encodeURIComponent(id)}`; })), body);
  await draw();
  return { receive: delayed((event) => event.payload.proposal_id === id && !body.querySelector("form") && draw()) };
}
