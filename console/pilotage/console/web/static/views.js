// The views beside the chat: what waits for a person, what happened, how the queues stand, what may come.
import { at, get, post } from "./api.js";
import { block, story } from "./blocks.js";
import { button, cardView, refresh } from "./card.js";
import { announce, distance, fill, h, keeping, plain, standing } from "./dom.js";
import { drawing } from "./drawings.js";
import { linked, prefectLink, short, split } from "./links.js";
import { cards, me, sleeping, snoozed } from "./state.js";

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
    fill(view, title(words, ask && h("label", { class: "beside" }, `${ask.words} `, select), button("Read again", draw)), body);
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

export const queuesView = board("Queues", [["Runs by deployment", "/api/draw/runs", { offset: new Date().getTimezoneOffset() }]], ["status", "queue", "runs"],
  { ask: { query: "hours", words: "Hours drawn", choices: [2, 1, 8, 24, 168] }, every: 10_000 }); // runs come and go without any decision
export const forecastView = board("Forecast", [["The riskiest of the next runs", "/api/draw/forecast"]], ["forecast"], { every: 30_000 });
export const kpiView = board("Numbers", [], ["kpi"], { ask: { command: "kpi", words: "Days", choices: [7, 1, 30, 90] } });
export const auditView = board("Audit", [], ["audit"], { ask: { command: "audit", words: "Entries", choices: [20, 50, 100, 200] } });
export const incidentsView = board("Incidents", [], ["incidents"]);

/** The story of one run, proposal or incident, with its picture and its card. */
export function storyView(kind) {
  return async (view, id) => {
    const body = h("div", { class: "board" });
    const draw = async () => {
      const parts = [];
      if (kind === "proposal") {
        await refresh(id);
        if (cards.has(id)) parts.push(cardView(id, { heading: "h2" }).element);
      }
      let blocks = [];
      let says = "";
      try { blocks = await told("why", id); } catch (refusal) { says = refusal.words ?? refusal.message; }
      // a run that something was decided about has its own facts beside the story
      if (kind === "run" && !says && blocks[0]?.title !== "Run") blocks = [...(await told("run", id).catch(() => [])).slice(0, 1), ...blocks];
      const run = kind === "run" ? id : split(blocks[0]?.pairs?.subject?.ref)[1];
      parts.push(...blocks.slice(0, 1).map(block));
      if (kind === "incident") parts.push(await planAnswers(id, draw));
      if (run) parts.push(await picture("What happened to the run, in order of time", at`/api/draw/run/${run}`, { offset: new Date().getTimezoneOffset() }));
      parts.push(...blocks.slice(1).map(block));
      if (says) parts.push(h("p", { class: "says" }, linked(plain(says))));
      keeping(body, () => fill(body, parts));
    };
    fill(view, title(`${kind[0].toUpperCase()}${kind.slice(1)} ${short(kind, id)}`,
      kind === "run" && prefectLink("run", id, "open in Prefect"), button("Ask about it", () => { location.hash = `#/chat?about=${encodeURIComponent(id)}`; })), body);
    await draw();
    return { receive: delayed((event) => [event.payload.run_id, event.payload.proposal_id, event.payload.incident_id].includes(id) && !body.querySelector("form") && draw()) };
  };
}

/** One answer to the plan of an incident, each run with a box to leave it out, and a word that somebody looks. */
async function planAnswers(id, draw) {
  const incident = await get(at`/api/incidents/${id}`).catch(() => null);
  if (!incident || incident.state !== "open" || !me.decides) return null;
  const waiting = incident.proposals.filter((each) => each.status === "needs_approval");
  const boxes = waiting.map((each) => [each, h("input", { type: "checkbox", checked: true })]);
  const says = h("p", { class: "says", role: "status" });
  const reason = h("input", { type: "text", maxlength: 500, "aria-label": "Reason", placeholder: "Reason (needed to reject)", autocomplete: "off" });
  const send = async (path, body, words) => {
    try {
      const reply = await post(path, body);
      announce(words(reply));
      await draw();
    } catch (refusal) { fill(says, refusal.words ?? refusal.message); }
  };
  const answer = (decision) => {
    const seen = Object.fromEntries(boxes.filter(([, box]) => box.checked).map(([each]) => [each.proposal_id, each.digest]));
    if (!Object.keys(seen).length) { fill(says, "Choose at least one run."); return; }
    if (decision === "reject" && !reason.value.trim()) { reason.focus(); fill(says, "Say why you reject it."); return; }
    send(at`/api/incidents/${id}/vote`, { decision, reason: reason.value, seen }, (reply) =>
      `${reply.results.filter((each) => each.counted).length} of ${reply.results.length} ${decision === "approve" ? "approved" : "rejected"}.`);
  };
  const looks = incident.acknowledged.by;
  return h("div", { class: "plan", role: "group", "aria-label": "Answer the plan" },
    waiting.length > 0 && [h("ul", {}, boxes.map(([each, box]) => h("li", {}, h("label", {}, box, ` ${plain(each.kind)} ${plain(each.target)}`)))), reason,
      button(waiting.length > 1 ? "Approve the plan" : "Approve", () => answer("approve"), "go"), button("Reject", () => answer("reject"), "no")],
    looks ? h("p", { class: "faint" }, `${plain(looks)} looks at it.`)
      : button("I look at it", () => send(at`/api/incidents/${id}/ack`, { reason: reason.value }, () => "You look at it; nobody else is asked.")), says);
}

// -- the inbox

/** What waits for a person: cards one by one, or one decision over many with each left out that should not be in it. */
export async function inboxView(view) {
  const list = h("ul", { class: "inbox" });
  const results = h("div", { role: "status" });
  const chosen = new Set();
  const rows = new Map();
  const count = h("span", { class: "faint" });
  const all = h("input", { type: "checkbox", onchange: () => { for (const [id, row] of rows) choose(id, row, all.checked); } });
  const reason = h("input", { type: "text", maxlength: 500, "aria-label": "Reason for all", placeholder: "Reason (needed to reject)", autocomplete: "off" });
  const bulk = h("div", { class: "bulk", hidden: !me.decides },
    h("label", {}, all, " all"), count, reason, button("Approve chosen", () => decideAll("approve"), "go"), button("Reject chosen", () => decideAll("reject"), "no"));
  const asleep = h("details", { class: "more", hidden: true });
  fill(view, title("Inbox", button("Read again", () => load())), bulk, results, list, asleep);
  await load();
  const offCards = cards.listen(arrived);
  const offSnoozed = snoozed.listen(() => load());
  return { receive() {}, leave() { offCards(); offSnoozed(); } };

  async function load() {
    let waiting = [];
    try {
      waiting = await get("/api/proposals?status=needs_approval");
    } catch (refusal) {
      fill(list, h("li", { class: "says" }, refusal.words ?? refusal.message));
      return;
    }
    for (const card of waiting) {
      if (card.snoozed_until && !snoozed.has(card.proposal_id)) snoozed.put(card.proposal_id, card.snoozed_until);
      cards.put(card);
    }
    const awake = waiting.filter((card) => !sleeping(card.proposal_id));
    const hidden = waiting.filter((card) => sleeping(card.proposal_id));
    const known = new Set(awake.map((card) => card.proposal_id));
    for (const [id, row] of rows) if (!known.has(id) && !row.element.querySelector("form")) drop(id, row);
    for (const card of awake) show(card.proposal_id);
    asleep.hidden = hidden.length === 0;
    fill(asleep, hidden.length > 0 && [h("summary", {}, `Snoozed by you: ${hidden.length}`), h("ul", {}, hidden.map((card) =>
      h("li", {}, linked(card.proposal_id), ` ${plain(card.words)}, again ${distance(snoozed.get(card.proposal_id))}`)))]);
    counted();
  }

  function arrived(id) {
    const card = cards.get(id);
    if (card.status === "needs_approval" && !sleeping(id)) show(id);
    const row = rows.get(id);
    if (row) {
      row.draw();
      if (!card.open) choose(id, row, false);
    }
    counted();
  }

  function show(id) {
    if (rows.has(id)) return;
    const box = h("input", { type: "checkbox", "aria-label": "", onchange: () => choose(id, row, box.checked), hidden: !me.decides });
    const line = h("summary", {});
    const inside = h("div", {});
    const details = h("details", { ontoggle: () => { if (details.open && !inside.firstChild) inside.append(cardView(id).element); } }, line, inside);
    const element = h("li", { "data-row": id }, box, details);
    const row = {
      box,
      element,
      draw() {
        const card = cards.get(id);
        box.setAttribute("aria-label", `Choose: ${plain(card.words)} ${plain(card.deployment)}`);
        box.disabled = !card.open;
        fill(line, h("strong", {}, plain(card.words)), h("span", {}, plain(card.deployment || card.target)),
          h("span", {}, card.env && `${plain(card.env)}, tier ${card.tier}`), h("span", {}, card.p_fail === null || card.p_fail === undefined ? "" : `${Math.round(card.p_fail * 100)} % to fail`),
          standing(card.status), h("span", { class: "faint" }, card.open ? `expires ${distance(card.expires_at)}` : ""));
      },
    };
    rows.set(id, row);
    row.draw();
    list.append(element);
    if (rows.size === 1 && window.innerWidth > 760) details.open = true;
  }

  function drop(id, row) {
    row.element.remove();
    rows.delete(id);
    chosen.delete(id);
  }

  function choose(id, row, yes) {
    const may = yes && !row.box.disabled;
    row.box.checked = may;
    if (may) chosen.add(id); else chosen.delete(id);
    counted();
  }

  function counted() {
    fill(count, rows.size ? `${chosen.size} of ${rows.size} chosen` : "Nothing waits for a person.");
    bulk.classList.toggle("idle", rows.size === 0);
  }

  async function decideAll(decision) {
    const ids = [...chosen];
    if (!ids.length) { fill(results, h("p", { class: "says" }, "Choose at least one.")); return; }
    if (decision === "reject" && !reason.value.trim()) { reason.focus(); fill(results, h("p", { class: "says" }, "Say why you reject them.")); return; }
    try {
      const answer = await post("/api/votes", { decision, reason: reason.value.trim(),
        items: ids.map((id) => ({ proposal_id: id, digest: cards.get(id).digest })) });
      fill(results, h("ul", { class: "results" }, answer.results.map((each) => h("li", {},
        standing(each.ok ? "ok" : "refused"), " ", linked(each.proposal_id), ` ${plain(cards.get(each.proposal_id)?.words)}: `,
        each.ok ? standing(each.card?.status ?? "") : plain(each.error?.message ?? each.error)))));
      for (const each of answer.results) if (each.card) cards.put(each.card);
      announce(`${answer.results.filter((each) => each.ok).length} of ${ids.length} counted.`);
      reason.value = "";
      all.checked = false;
      for (const id of ids) if (rows.has(id)) choose(id, rows.get(id), false);
    } catch (refusal) {
      fill(results, h("p", { class: "says" }, refusal.words ?? refusal.message));
    }
  }
}
