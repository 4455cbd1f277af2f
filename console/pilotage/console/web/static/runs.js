// Runs: the list of them, and one with its states, tasks, log lines, forecast over time, cards, and the way into Prefect.
import { at, get } from "./api.js";
import { block } from "./blocks.js";
import { button, cardView } from "./card.js";
import { fill, h, keeping, moment, plain, standing } from "./dom.js";
import { drawing } from "./drawings.js";
import { logOf } from "./incidents.js";
import { prefectLink, refLink } from "./links.js";
import { listOf } from "./lists.js";
import { cards } from "./state.js";
import { t, tn } from "./words.js";

export async function runsView(view, id, query) {
  const states = ["failed", "crashed", "running", "pending", "scheduled", "completed", "cancelled", "paused"];
  const list = listOf({
    path: "/api/lists/runs",
    label: t("Runs"),
    start: { state: query?.get("state") ?? "" },
    filters: [{ name: "words", label: t("Search") }, { name: "state", label: t("State"), choices: [["", t("all")], ...states.map((each) => [each, each])] }],
    empty: t("No run was seen yet."),
    row: (each) => h("li", {}, refLink(`run:${each.run_id}`, each.name), " ", standing(each.state), " ", h("span", {}, plain(each.deployment)), " ",
      each.attempts > 1 && h("span", { class: "faint" }, t("attempt {count} ", { count: each.attempts })), h("span", { class: "faint" }, plain(each.queue), " ", moment(each.updated)),
      ["failed", "crashed"].includes(each.state_type.toLowerCase()) && each.message && h("span", { class: "cause" }, plain(each.message))),
  });
  fill(view, h("header", { class: "head" }, h("h1", { tabindex: "-1" }, t("Runs")), button(t("Read again"), () => list.load())), list.element);
  await list.load();
  return { receive() {}, leave() {} };
}

export async function runView(view, id) {
  const body = h("div", { class: "board" }, h("p", { class: "faint loading", role: "status" }, t("Reading…")));
  const draw = async () => {
    const none = () => [];
    const [own, why, lines, forecasts, about] = await Promise.all([
      told("run", id), told("why", id).catch(none), get(at`/api/runs/${id}/logs`).catch(none),
      get(at`/api/runs/${id}/forecasts`).catch(none),
      get(`/api/lists/proposals?${new URLSearchParams({ words: id, snoozed: true })}`).then((page) => page.rows, none)]);
    const waiting = about.filter((each) => each.status === "needs_approval");
    for (const each of waiting) cards.put(await get(at`/api/proposals/${each.proposal_id}`));
    const picture = await drawing(at`/api/draw/run/${id}`, undefined, { offset: new Date().getTimezoneOffset() }).catch((refusal) => h("p", { class: "faint" }, refusal.message));
    keeping(body, () => fill(body, own.slice(0, 1).map(block),
      waiting.length > 0 && h("section", { class: "block" }, h("h2", {}, t("The decision")), waiting.map((each) => cardView(each.proposal_id).element)),
      h("section", { class: "block" }, h("h2", {}, t("Log lines")), lines.length ? logOf(lines.slice(-60)) : h("p", { class: "empty" }, t("No log line is kept of it."))),
      h("figure", { class: "drawing" }, h("figcaption", {}, t("States, tasks and decisions, in order of time")), picture),
      chances(forecasts), proposals(about.filter((each) => each.status !== "needs_approval")),
      why.filter((each) => each.title !== "Run").map(block)));
  };
  fill(view, h("header", { class: "head" }, h("h1", { tabindex: "-1" }, t("Run {id}", { id: plain(id).slice(0, 8) })), prefectLink("run", id, t("open in Prefect")),
    button(t("Ask about it"), () => { location.hash = `#/chat?about=${encodeURIComponent(id)}`; })), body);
  await draw();
  let due = 0;
  return {
    receive(event) {
      if (event.type !== "step" || ![event.payload.run_id, event.payload.proposal_id].includes(id) || body.querySelector("form")) return;
      clearTimeout(due);
      due = setTimeout(() => draw().catch(() => {}), 1500);
    },
    leave() { clearTimeout(due); },
  };
}

const told = async (command, about) => (await get(`/api/show/${command}?about=${encodeURIComponent(about)}`)).blocks;

/** What was forecast of the run: what is expected by the model that is named, not what will be. */
function chances(found) {
  if (!found.length) return h("section", { class: "block" }, h("h2", {}, t("Forecast over time")), h("p", { class: "empty" }, t("Nothing was forecast of it: only runs about to start are.")));
  const last = found.at(-1);
  const between = last.low === null || last.high === null ? "" : t(", between {low} % and {high} %", { low: Math.round(last.low * 100), high: Math.round(last.high * 100) });
  return h("section", { class: "block" }, h("h2", {}, t("Forecast over time")),
    h("p", {}, t("The last says a chance of failing of {chance} %{between}; a measured forecast ({model}), not a language model.", { chance: Math.round(last.p_fail * 100), between, model: plain(last.model) })),
    last.reasons.length > 0 && h("p", { class: "faint" }, last.reasons.map(plain).join("; ")),
    block({ kind: "chart", title: t("Chance of failing"), x: found.map((each) => new Date(each.made_at).toLocaleTimeString()), y: found.map((each) => Math.round(each.p_fail * 1000) / 1000), unit: "share", style: "line" }));
}

function proposals(found) {
  return found.length > 0 && h("section", { class: "block" }, h("h2", {}, tn(found.length, "One proposal about it", "{count} proposals about it")),
    h("ul", { class: "rows" }, found.map((each) => h("li", {}, refLink(`proposal:${each.proposal_id}`, each.words), " ", standing(each.status), " ",
      each.outcome && [standing(each.outcome), " ", h("span", { class: "faint" }, plain(each.outcome_detail))], " ", h("span", { class: "faint" }, moment(each.filed_at))))));
}
