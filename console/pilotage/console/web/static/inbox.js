// The inbox: what waits for a person, in rows that differ; one by one, or one decision over many with each left out that
// should not be in it. Keys: j and k go from row to row, Enter opens, a approves, r rejects, x chooses.
import { at, get, post } from "./api.js";
import { approveWhy, button, cardView, refresh, rejectCard } from "./card.js";
import { announce, distance, fill, h, moment, plain, standing } from "./dom.js";
import { linked, refLink } from "./links.js";
import { counted, listOf, shown } from "./lists.js";
import { cards, me, sleeping, snoozed } from "./state.js";
import { number, t, tn } from "./words.js";

const AT_ONCE = 100; // votes of one request

export async function inboxView(view, id, query) {
  const chosen = new Map();
  const rows = new Map();
  const results = h("div", { role: "status" });
  const count = h("span", { class: "faint" });
  const reason = h("input", { type: "text", maxlength: 500, "aria-label": t("Reason for all"), placeholder: t("Reason (needed to reject)"), autocomplete: "off" });
  const all = h("input", { type: "checkbox", onchange: () => { for (const row of rows.values()) choose(row, all.checked); } });
  const bulk = h("div", { class: "bulk", hidden: !me.decides }, h("label", {}, all, ` ${t("all that are shown")}`), count, reason,
    button(t("Approve chosen"), () => decideAll("approve"), "go"), button(t("Reject chosen"), () => decideAll("reject"), "no"));
  const choices = get("/api/lists/choices?status=needs_approval").catch(() => ({}));
  const several = (name, all) => choices.then((found) => counted(found[name], all));
  const asleep = h("p", { class: "faint", hidden: true });
  const list = listOf({
    path: "/api/lists/proposals",
    label: t("Proposals that wait for a person"),
    fixed: { status: "needs_approval" },
    start: { sort: "newest", mine: query?.get("mine") ?? "" },
    filters: [
      { name: "words", label: t("Search") },
      { name: "mine", label: t("For whom"), choices: [["", t("everybody")], ["true", t("you")]] },
      { name: "deployment", label: t("Deployment"), choices: several("deployment", t("all")) },
      { name: "team", label: t("Team"), choices: several("team", t("all")) },
      { name: "kind", label: t("Action"), choices: several("kind", t("all")) },
      { name: "sort", label: t("Order"), choices: [["newest", t("newest first")], ["oldest", t("oldest first")], ["expiry", t("what expires first")], ["risk", t("greatest risk first")], ["deployment", t("by deployment")]] },
    ],
    row: rowOf,
    empty: t("Nothing waits for a person."),
    said: (page, some) => shown(some, page.count),
    onRows(page, values) {
      const known = new Set(values.map((each) => each.proposal_id));
      for (const each of rows.keys()) if (!known.has(each)) { rows.delete(each); chosen.delete(each); }
      asleep.hidden = !page.asleep;
      if (page.asleep) fill(asleep, tn(page.asleep, "One is snoozed by you.", "{count} are snoozed by you."), " ", button(t("Show them"), showAsleep));
      all.checked = false;
      counts();
    },
  });
  fill(view, h("header", { class: "head" }, h("h1", { tabindex: "-1" }, t("Inbox")), button(t("Read again"), () => list.load())), bulk, results, list.element, asleep);
  await list.load();
  const offCards = cards.listen(arrived);
  const offSnoozed = snoozed.listen(() => list.load());
  let due = 0;
  return {
    receive(event) { // what is new comes on top; what was decided here stays in its row with what came of it
      if (event.type !== "step" || !["judged", "approved", "rejected", "expired"].includes(event.payload.step)) return;
      clearTimeout(due);
      due = setTimeout(() => list.fresh((each) => each.proposal_id), 1500);
    },
    leave() { offCards(); offSnoozed(); clearTimeout(due); },
    key,
  };

  function rowOf(line) {
    const box = h("input", { type: "checkbox", "aria-label": t("Choose: {what}", { what: `${plain(line.words)} ${plain(line.run_name || line.deployment)}` }), onchange: () => choose(row, box.checked), hidden: !me.decides });
    const summary = h("summary", {});
    const inside = h("div", {});
    const details = h("details", { ontoggle: () => { if (details.open && !inside.firstChild) open(); } }, summary, inside);
    const row = { line, box, details, summary, element: h("li", { "data-row": line.proposal_id }, box, details), draw, status: line.status };
    rows.set(line.proposal_id, row);
    draw();
    return row.element;

    async function open() {
      await refresh(line.proposal_id);
      if (cards.has(line.proposal_id)) inside.replaceChildren(cardView(line.proposal_id).element);
    }

    function draw() {
      const card = cards.get(line.proposal_id);
      const status = card?.status ?? line.status;
      box.disabled = card ? !card.open : !line.open;
      const outcome = card?.outcome?.judgement ?? line.outcome;
      fill(summary, h("strong", {}, plain(line.words)),
        h("span", {}, plain(line.deployment || line.target)),
        line.run_name && h("span", { class: "run" }, plain(line.run_name)),
        (line.cause || line.error) && h("span", { class: "cause" }, plain([line.cause.replaceAll("_", " "), line.error].filter(Boolean).join(": "))),
        line.env && h("span", {}, t("{env}, tier {tier}", { env: plain(line.env), tier: line.tier })),
        typeof line.p_fail === "number" && h("span", {}, t("{chance} % to fail", { chance: Math.round(line.p_fail * 100) })),
        h("span", { class: "faint" }, t("filed {when}", { when: distance(line.filed_at) })),
        standing(status), outcome && outcome !== status && standing(outcome),
        status === "needs_approval" && h("span", { class: "faint" }, t("expires {when}", { when: distance(line.expires_at) })));
    }
  }

  function arrived(changed) {
    const row = rows.get(changed);
    if (!row) return;
    row.draw();
    if (!cards.get(changed).open) choose(row, false);
    counts();
  }

  function choose(row, yes) {
    const may = yes && !row.box.disabled;
    row.box.checked = may;
    if (may) chosen.set(row.line.proposal_id, row.line.digest); else chosen.delete(row.line.proposal_id);
    counts();
  }

  /** Everything of the incident of a chosen row is chosen with one press; each can be left out again. */
  function counts() {
    bulk.classList.toggle("idle", chosen.size === 0);
    const incidents = new Set([...chosen.keys()].map((each) => rows.get(each)?.line.incident_id).filter(Boolean));
    const one = incidents.size === 1 ? [...incidents][0] : "";
    fill(count, chosen.size ? t("{some} chosen", { some: number(chosen.size) }) : "",
      one && [" ", h("button", { type: "button", onclick: () => wholeIncident(one) }, t("Choose all of its incident"))]);
  }

  async function wholeIncident(incident) {
    let after = "";
    do {
      const page = await get(`/api/lists/proposals?${new URLSearchParams({ status: "needs_approval", incident, limit: 200, after })}`);
      for (const line of page.rows) {
        if (!rows.has(line.proposal_id)) list.list.append(rowOf(line));
        choose(rows.get(line.proposal_id), true);
      }
      after = page.next;
    } while (after);
    announce(t("{some} chosen", { some: number(chosen.size) }));
  }

  async function showAsleep() {
    const page = await get("/api/lists/proposals?status=needs_approval&snoozed=true&limit=200").catch(() => ({ rows: [] }));
    const hidden = page.rows.filter((each) => each.snoozed_until && sleeping(each.proposal_id) !== false);
    fill(asleep, t("Snoozed by you:"), h("ul", {}, hidden.map((each) => h("li", {}, linked(each.proposal_id), ` ${plain(each.words)} `, moment(each.snoozed_until)))));
  }

  async function decideAll(decision) {
    const items = [...chosen].map(([proposal_id, digest]) => ({ proposal_id, digest }));
    if (!items.length) { fill(results, h("p", { class: "says" }, t("Choose at least one."))); return; }
    if (decision === "reject" && !reason.value.trim()) { reason.focus(); fill(results, h("p", { class: "says" }, t("Say why you reject them."))); return; }
    const answers = [];
    try {
      for (let from = 0; from < items.length; from += AT_ONCE) {
        const answer = await post("/api/votes", { decision, reason: reason.value.trim(), items: items.slice(from, from + AT_ONCE) });
        answers.push(...answer.results);
      }
    } catch (refusal) {
      fill(results, h("p", { class: "says" }, refusal.words ?? refusal.message));
      if (!answers.length) return;
    }
    fill(results, h("ul", { class: "results" }, answers.map((each) => h("li", {},
      standing(each.ok ? "ok" : "refused"), " ", refLink(`proposal:${each.proposal_id}`, each.proposal_id), ` ${plain(rows.get(each.proposal_id)?.line.words ?? "")}: `,
      each.ok ? standing(each.card?.status ?? "") : plain(each.error?.message ?? each.error)))));
    for (const each of answers) if (each.card) cards.put(each.card);
    announce(t("{some} of {count} counted.", { some: answers.filter((each) => each.ok).length, count: items.length }));
    reason.value = "";
    all.checked = false;
    for (const item of items) if (rows.has(item.proposal_id)) choose(rows.get(item.proposal_id), false);
  }

  // -- keys

  function focused() {
    const element = document.activeElement?.closest?.("[data-row]");
    return element && rows.get(element.dataset.row);
  }

  function key(name) {
    const order = [...list.list.children].map((each) => rows.get(each.dataset.row)).filter(Boolean);
    const row = focused();
    if (name === "j" || name === "k") {
      const next = order[Math.max(0, Math.min(order.length - 1, order.indexOf(row) + (name === "j" ? 1 : -1)))];
      next?.summary.focus();
      next?.summary.scrollIntoView({ block: "nearest" });
      return Boolean(next);
    }
    if (!row) return false;
    if (name === "x") { choose(row, !row.box.checked); return true; }
    if (name === "a" || name === "r") { act(row, name === "a" ? "approve" : "reject"); return true; }
    return false;
  }

  /** The first press opens the card; what was read is decided on with the second. */
  async function act(row, decision) {
    if (!row.details.open) {
      row.details.open = true;
      announce(t("Opened; press the key again to decide."));
      return;
    }
    const card = await get(at`/api/proposals/${row.line.proposal_id}`).catch(() => null);
    if (!card) return;
    cards.put(card);
    const why = approveWhy(card, decision);
    if (why) { announce(why); return; }
    if (decision === "reject") { requestAnimationFrame(() => rejectCard(row.line.proposal_id)); return; }
    try {
      cards.put(await post(at`/api/proposals/${row.line.proposal_id}/vote`, { digest: row.line.digest, decision, reason: "" }));
      announce(t("Approved; now {status}.", { status: cards.get(row.line.proposal_id).status.replaceAll("_", " ") }));
    } catch (refusal) { announce(refusal.words ?? refusal.message); fill(results, h("p", { class: "says" }, refusal.words ?? refusal.message)); }
  }
}
