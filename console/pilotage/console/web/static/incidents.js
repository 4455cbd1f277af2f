// Incidents: the list of them, and one with everything a person decides by.
import { at, get, post } from "./api.js";
import { block } from "./blocks.js";
import { button, cardView } from "./card.js";
import { announce, fill, h, keeping, moment, plain, standing } from "./dom.js";
import { drawing } from "./drawings.js";
import { linked, refLink } from "./links.js";
import { listOf } from "./lists.js";
import { cards, me } from "./state.js";
import { number, t, tn } from "./words.js";

const CARDS = 1; // cards that are shown; the others are a press away, for one answer takes them all

export async function incidentsView(view, id, query) {
  const list = listOf({
    path: "/api/lists/incidents",
    label: t("Incidents"),
    start: { state: query?.get("state") ?? "all", sort: "newest" },
    filters: [
      { name: "words", label: t("Search") },
      { name: "state", label: t("Which"), choices: [["all", t("open and over")], ["open", t("open")], ["over", t("over")]] },
      { name: "sort", label: t("Order"), choices: [["newest", t("newest first")], ["oldest", t("oldest first")]] },
    ],
    empty: t("No incident on record."),
    said: (page, some) => t("{some} of {count} shown; {open} open, {over} over", { some: number(some), count: number(page.count), open: number(page.counts.open), over: number(page.counts.over) }),
    row: (each) => h("li", {},
      h("a", { href: `#/incident/${each.incident_id}`, class: "says-it" }, plain(each.says)), " ",
      standing(each.status), " ",
      each.waiting > 0 && h("span", { class: "wait" }, tn(each.waiting, "one proposal waits", "{count} proposals wait")), " ",
      h("span", { class: "faint" }, each.runs > 1 && t("{left} of {count} runs not done, ", { left: each.runs_open, count: each.runs }), t("since"), " ", moment(each.opened_at),
        each.earlier > 0 && [", ", tn(each.earlier, "one alike before", "{count} alike before")])),
  });
  fill(view, h("header", { class: "head" }, h("h1", { tabindex: "-1" }, t("Incidents")), button(t("Read again"), () => list.load())), list.element);
  await list.load();
  let due = 0;
  return {
    receive(event) {
      if (event.type !== "step" || window.scrollY > 0) return;
      clearTimeout(due);
      due = setTimeout(() => list.load(), 2000);
    },
    leave() { clearTimeout(due); },
  };
}

export async function incidentView(view, id) {
  const body = h("div", { class: "board" }, h("p", { class: "faint loading", role: "status" }, t("Reading…")));
  const head = h("h1", { tabindex: "-1" }, t("Incident {id}", { id: plain(id).slice(0, 14) }));
  let shownOnce = false;
  const draw = async () => {
    const found = await get(at`/api/incidents/${id}`);
    for (const row of toDecide(found).slice(0, CARDS)) {
      try { cards.put(await get(at`/api/proposals/${row.proposal_id}`)); } catch { /* it is among the rows */ }
    }
    const story = await get(`/api/show/why?about=${encodeURIComponent(found.incident_id)}`).then((reply) => reply.blocks, () => []);
    const picture = await drawing(at`/api/draw/incident/${found.incident_id}`, undefined, { offset: new Date().getTimezoneOffset() }).catch((refusal) => h("p", { class: "faint" }, refusal.message));
    fill(head, plain(found.says));
    keeping(body, () => fill(body, facts(found), lines(found), decision(found, draw), runs(found),
      h("figure", { class: "drawing" }, h("figcaption", {}, t("What happened, in order of time")), picture),
      rest(found), earlier(found), note(found, draw),
      h("details", { class: "more" }, h("summary", {}, t("The whole story")), story.filter((each) => each.kind === "story").map(block))));
    shownOnce = true;
  };
  fill(view, h("header", { class: "head" }, head, button(t("Ask about it"), () => { location.hash = `#/chat?about=${encodeURIComponent(id)}`; })), body);
  await draw();
  let due = 0;
  return {
    receive(event) {
      if (event.type !== "step" || !shownOnce || body.querySelector("form, input:focus")) return;
      clearTimeout(due);
      due = setTimeout(() => draw().catch(() => {}), 1500);
    },
    leave() { clearTimeout(due); },
  };
}

function facts(found) {
  const pair = (name, ...value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));
  const left = found.runs.filter((each) => each.state === "open").length;
  return h("section", { class: "block" }, h("dl", { class: "pairs" },
    pair(t("Stands"), standing(found.status)),
    pair(t("Since"), moment(found.failed_at ?? found.opened_at)),
    pair(t("Runs"), t("{left} of {count} not done", { left, count: found.runs.length })),
    found.deployment && pair(t("Deployment"), plain(found.deployment)),
    found.resolved_at && pair(t("Over"), moment(found.resolved_at), ` ${plain(found.resolution)}`),
    found.acknowledged.by && pair(t("Looked at by"), plain(found.acknowledged.by), " ", moment(found.acknowledged.at))));
}

function lines(found) {
  return h("section", { class: "block" }, h("h2", {}, t("What its runs logged")),
    found.lines.length ? logOf(found.lines) : h("p", { class: "empty" }, t("No log line is kept of its runs.")));
}

/** Log lines, each with its moment; errors are named, not only coloured. */
export function logOf(found) {
  const run = found[0]?.run_id;
  return h("div", { class: "log", tabindex: "0", role: "region", "aria-label": t("Log lines") }, h("ol", {}, found.map((line) =>
    h("li", { class: line.level >= 40 ? "error" : null }, moment(line.at), " ", h("span", { class: "level" }, LEVELS[line.level] ?? line.level), " ", h("code", {}, plain(line.message))))),
  run && h("p", {}, refLink(`run:${run}`, t("the run of these lines"))));
}

const LEVELS = { 10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL" };

/** What waits for a person. What somebody edited comes first, for that is not what the others are. */
function toDecide(found) {
  const edited = new Set(found.proposals.filter((each) => each.status === "replaced").map((each) => each.target));
  const waiting = found.proposals.filter((each) => each.status === "needs_approval");
  return [...waiting.filter((each) => edited.has(each.target)), ...waiting.filter((each) => !edited.has(each.target))];
}

/** The cards of what waits, and one answer to all of it with each run left out that should not be in it. */
function decision(found, draw) {
  const waiting = toDecide(found);
  const looks = found.acknowledged.by;
  const says = h("p", { class: "says", role: "alert" });
  const reason = h("input", { type: "text", maxlength: 500, "aria-label": t("Reason"), placeholder: t("Reason (needed to reject)"), autocomplete: "off" });
  const send = async (path, given, words) => {
    try {
      const reply = await post(path, given);
      announce(words(reply));
      await draw();
    } catch (refusal) { fill(says, refusal.words ?? refusal.message); }
  };
  const boxes = waiting.map((each) => [each, h("input", { type: "checkbox", checked: true })]);
  const answer = (decided) => {
    const seen = Object.fromEntries(boxes.filter(([, box]) => box.checked).map(([each]) => [each.proposal_id, each.digest]));
    if (!Object.keys(seen).length) { fill(says, t("Choose at least one run.")); return; }
    if (decided === "reject" && !reason.value.trim()) { reason.focus(); fill(says, t("Say why you reject it.")); return; }
    send(at`/api/incidents/${found.incident_id}/vote`, { decision: decided, reason: reason.value, seen }, (reply) =>
      t("{some} of {count} counted.", { some: reply.results.filter((each) => each.counted).length, count: reply.results.length }));
  };
  const name = (each) => plain(found.names[each.run_id] ?? each.target);
  const group = waiting.length > 1 && me.decides && h("div", { class: "plan", role: "group", "aria-label": t("Answer the plan") },
    h("p", {}, tn(waiting.length, "One proposal waits.", "{count} proposals wait; one answer can take them all.")),
    h("ul", {}, boxes.map(([each, box]) => h("li", {}, h("label", {}, box, ` ${plain(each.kind.replaceAll("_", " "))}, ${name(each)}`)))), reason,
    h("div", { class: "buttons" }, button(t("Approve the plan"), () => answer("approve"), "go"), button(t("Reject"), () => answer("reject"), "no")));
  const shown = waiting.slice(0, CARDS).filter((each) => cards.has(each.proposal_id));
  return h("section", { class: "block" }, h("h2", {}, t("The decision")),
    waiting.length === 0 && h("p", { class: "empty" }, t("Nothing of it waits for a person.")),
    group, shown.map((each) => cardView(each.proposal_id).element),
    waiting.length > CARDS && h("details", { class: "more" }, h("summary", {}, tn(waiting.length - CARDS, "One more card", "{count} more cards")),
      h("ul", {}, waiting.slice(CARDS).map((each) => h("li", {}, refLink(`proposal:${each.proposal_id}`, `${each.kind.replaceAll("_", " ")}, ${name(each)}`))))),
    found.state === "open" && (looks ? h("p", { class: "faint" }, t("{who} looks at it.", { who: plain(looks) }))
      : me.decides && button(t("I look at it"), () => send(at`/api/incidents/${found.incident_id}/ack`, { reason: reason.value }, () => t("You look at it; nobody else is asked.")))), says);
}

function runs(found) {
  return h("section", { class: "block" }, h("h2", {}, t("Its runs")), h("ul", { class: "rows" }, found.runs.map((each) => h("li", {},
    each.run_id ? refLink(`run:${each.run_id}`, found.names[each.run_id] ?? each.run_id.slice(0, 8)) : plain(each.subject), " ",
    standing(each.state), " ", h("span", { class: "faint" }, plain(each.failure_class.replaceAll("_", " ")), ", ", moment(each.at), each.closed_at && [" – ", moment(each.closed_at)]),
    each.why && h("span", {}, ` ${plain(each.why)}`)))));
}

/** What was proposed and needs nobody any more, with what came of it. */
function rest(found) {
  const others = found.proposals.filter((each) => each.status !== "needs_approval");
  return others.length > 0 && h("section", { class: "block" }, h("h2", {}, t("What was proposed")), h("ul", { class: "rows" }, others.map((each) => h("li", {},
    refLink(`proposal:${each.proposal_id}`, `${each.kind.replaceAll("_", " ")}, ${plain(found.names[each.run_id] ?? each.target)}`), " ", standing(each.status), " ",
    each.outcome.judgement && [standing(each.outcome.judgement), " ", h("span", { class: "faint" }, plain(each.outcome.detail))]))));
}

function earlier(found) {
  return found.earlier.length > 0 && h("section", { class: "block" }, h("h2", {}, t("Alike before")), h("ul", { class: "rows" }, found.earlier.map((each) => h("li", {},
    refLink(`incident:${each.incident_id}`, each.incident_id), " ", moment(each.at), ` ${plain(each.resolution)}`,
    each.helped ? [" ", h("strong", {}, t("{what} helped", { what: plain(each.helped.replaceAll("_", " ")) }))] : ""))));
}

function note(found) {
  const told = found.note;
  const pair = (name, value) => value && value.length > 0 && h("div", {}, h("dt", {}, name), h("dd", {}, linked(plain([value].flat().join("; ")))));
  return h("section", { class: "block" }, h("h2", {}, t("Hand-over note")), h("dl", { class: "facts" },
    pair(t("Broken"), told.broken), pair(t("Done"), told.done), pair(t("Next"), told.next), pair(t("Wanted"), told.wanted),
    pair(t("How to answer"), told.answer), pair(t("Said"), found.acknowledged.reason)));
}
