// A proposal as a card: what would be done, why, by which rule, and the person's answer to exactly this digest.
import { at, get, post } from "./api.js";
import { announce, distance, fill, h, keeping, moment, plain, standing } from "./dom.js";
import { actionForm } from "./forms.js";
import { linked, prefectLink, refLink } from "./links.js";
import { markdown } from "./markdown.js";
import { cards, me, snoozed } from "./state.js";
import { t, tn } from "./words.js";

let schemas = null;
const shown = new Set();
cards.listen((id) => {
  for (const view of shown) if (view.id === id) view.draw();
});

/** The element of one card. It follows what becomes of the proposal; an open form stays open. */
export function cardView(id, { heading = "h3" } = {}) {
  const body = h("div", {});
  const form = h("div", { class: "card-form" });
  const says = h("p", { class: "says", role: "alert" });
  const buttons = h("footer", { class: "buttons" });
  const element = h("article", { class: "card", "data-proposal": id, tabindex: "-1" }, body, form, says, buttons);
  let drawn = "";
  const view = {
    id,
    draw() {
      const card = cards.get(id);
      if (!card) return;
      const now = JSON.stringify([card, Boolean(expired(card))]);
      if (now === drawn) return;
      drawn = now;
      element.dataset.status = card.status;
      element.setAttribute("aria-label", `Proposal: ${plain(card.words)}, ${plain(card.status)}`);
      keeping(element, () => {
        fill(body, face(card, heading));
        fill(buttons, card.open && !expired(card) ? answers(card, view) : afterwards(card, view));
      });
    },
    open(...parts) { fill(form, ...parts); form.querySelector("input, textarea, select")?.focus(); },
    close() { form.replaceChildren(); },
    say(words) { fill(says, linked(plain(words))); },
    focus() { element.focus(); },
    element,
  };
  shown.add(view);
  for (const other of shown) if (other !== view && !other.element.isConnected && other.seen) shown.delete(other);
  requestAnimationFrame(() => { view.seen = true; });
  view.draw();
  return view;
}

const expired = (card) => card.expires_at && new Date(card.expires_at) < new Date();

function face(card, heading) {
  const where = [card.deployment, card.env && `env ${card.env}`, card.tier !== null && card.tier !== undefined && `tier ${card.tier}`, card.team && `team ${card.team}`];
  return [
    h("header", {},
      h(heading, {}, plain(card.words)),
      h("span", { title: plain(card.standing) }, standing(expired(card) && card.open ? "expired" : card.status))),
    h("p", { class: "where" }, where.filter(Boolean).map((each, n) => [n > 0 && " · ", plain(each)]), card.team || card.deployment ? " · " : "",
      refLink(card.run_id ? `run:${card.run_id}` : card.target, card.run_id ? `run ${card.run_id.slice(0, 8)}` : card.target.startsWith("deployment:") ? "the deployment" : card.target), " ",
      card.run_id && prefectLink("run", card.run_id)),
    h("dl", { class: "facts" },
      fact(t("Because"), (card.failure_class || card.notes?.length > 0) && [h("strong", {}, plain(card.failure_class.replaceAll("_", " "))), card.notes?.length > 0 && h("p", { class: "quoted" }, plain(card.notes[0])),
        card.incident_id && [" ", refLink(`incident:${card.incident_id}`, t("its incident"))]]),
      fact(t("Changes"), card.changes?.length ? h("ul", { class: "changes" }, card.changes.map((each) => h("li", {},
        h("span", { class: "what" }, plain(each.what)), " ", h("del", {}, plain(each.before)),
        h("span", { "aria-hidden": "true" }, " → "), h("span", { class: "unseen" }, " becomes "), h("ins", {}, plain(each.after))))) : t("nothing in Prefect's own state")),
      fact(t("Concerns"), concerned(card.touches)),
      fact(t("Checked"), card.within && t("within {time}", { time: plain(card.within) })),
      fact(t("Its proposer says"), plain(card.proposer_says)),
      fact(t("Takes"), plain(card.takes)),
      fact(t("Chance of failing"), chance(card)),
      fact(t("Rule and verdict"), [standing(card.verdict), " ", card.policies?.length > 0 && h("code", {}, card.policies.join(", ")),
        card.reasons?.length > 0 && h("p", {}, card.reasons.join("; "))]),
      fact(t("Who may approve"), card.who_may?.length > 0 && card.who_may.join("; ")),
      fact(t("What would change it"), card.would_change?.join("; ")),
      fact(t("Undo"), card.undo),
      fact(t("Replaced by"), card.replaced_by && refLink(`proposal:${card.replaced_by}`, card.replaced_by)),
      fact(t("Edit of"), card.replaces && refLink(`proposal:${card.replaces}`, card.replaces)),
      fact(t("Expires"), card.open && [moment(card.expires_at), ` (${distance(card.expires_at)})`]),
      fact(t("Proposed by"), [plain(card.proposer), card.on_behalf_of && ` for ${plain(card.on_behalf_of)}`]),
      fact(t("Votes"), card.votes?.map((vote) => h("p", { class: "vote" }, standing(vote.decision), ` ${plain(vote.voter ?? vote.by ?? "")}`, vote.reason && `: ${plain(vote.reason)}`))),
      fact(t("Outcome"), card.outcome?.judgement && [standing(card.outcome.judgement), " ", plain(card.outcome.detail)])),
    h("details", { class: "more" }, h("summary", {}, t("Why this, and not something else")),
      h("dl", { class: "facts" },
        fact(t("Taken for"), [plain(card.failure_class), card.found_by && ` (found by ${plain(card.found_by)})`]),
        fact(t("Seen"), card.notes?.length > 0 && h("ul", {}, card.notes.map((note) => h("li", { class: "quoted" }, plain(note))))),
        fact(t("In words"), card.explanation && h("div", { class: "prose" }, markdown(card.explanation))),
        fact(t("Not taken"), card.alternatives?.length > 0 && h("ul", {}, card.alternatives.map((each) => h("li", {}, plain(each))))),
        fact(t("Evidence"), card.evidence?.length > 0 && card.evidence.map((ref, n) => [n > 0 && ", ", h("code", {}, plain(ref))])),
        fact(t("What the lever does"), card.does),
        fact(t("Story"), refLink(`proposal:${card.proposal_id}`, card.proposal_id)),
        fact(t("Incident"), card.incident_id && refLink(`incident:${card.incident_id}`, card.incident_id)),
        fact(t("Digest"), h("code", {}, plain(card.digest)))))];
}

function fact(name, ...value) {
  const there = value.flat(Infinity).some((each) => each !== undefined && each !== null && each !== false && each !== "");
  return there ? h("div", {}, h("dt", {}, name), h("dd", {}, value)) : null;
}

function concerned(touches) {
  if (!touches?.runs) return null;
  const count = touches.runs.length + touches.more;
  if (!count) return t("no run, as it is now");
  return h("details", { class: "more" }, h("summary", {}, tn(count, "one run, as it is now", "{count} runs, as it is now")),
    h("ul", {}, touches.runs.map((each) => h("li", {}, refLink(`run:${each.run_id}`, each.name), ` ${plain(each.becomes)}`)),
      touches.more > 0 && h("li", { class: "faint" }, t("and {count} more", { count: touches.more }))));
}

function chance(card) {
  if (card.p_fail === null || card.p_fail === undefined) return t("no forecast for this one");
  const meter = h("meter", { min: 0, max: 1, value: card.p_fail, low: 0.34, high: 0.67, optimum: 0, "aria-label": "chance of failing" });
  return [h("strong", {}, `${Math.round(card.p_fail * 100)} %`), " ", meter, h("small", {}, ` ${t("measured forecast {model}, not a language model", { model: plain(card.forecast_model) })}`),
    card.forecast_reasons?.length > 0 && h("p", {}, card.forecast_reasons.map(plain).join("; "))];
}

// -- what a person can do

function answers(card, view) {
  const ask = button(t("Ask"), () => { location.hash = `#/chat?about=${encodeURIComponent(card.proposal_id)}`; });
  if (!me.decides) return [h("p", { class: "faint" }, t("You look on as {roles}; an approver decides.", { roles: me.roles.join(", ") || "–" })), ask];
  return [
    decider(t("Approve"), approveWhy(card, "approve"), () => decide(card, view, "approve", ""), "go"),
    decider(t("Reject…"), approveWhy(card, "reject"), () => reasonForm(card, view), "no"),
    button(t("Edit…"), () => editForm(card, view)),
    button(t("Snooze…"), () => snoozeForm(card, view)),
    button(t("Delegate…"), () => lendForm(view)),
    ask,
    approveWhy(card, "approve") && h("p", { class: "faint why", id: `why-${card.proposal_id}` }, t("You cannot approve it: {why}", { why: plain(approveWhy(card, "approve")) })),
  ];
}

/** Why this person's answer would not count, or nothing; the API says it, and looks again at the vote itself. */
export function approveWhy(card, decision) {
  if (!me.decides) return t("you look on as {roles}; an approver decides.", { roles: me.roles.join(", ") || "nobody" });
  if (card.you?.[decision] !== undefined) return card.you[decision];
  if (decision === "approve" && [card.proposer, card.on_behalf_of].includes(me.name)) return t("you proposed it; somebody else approves.");
  return card.votes?.some((vote) => vote.voter === me.name && vote.decision === decision) ? t("you did already.") : "";
}

/** Opens the form in which a rejection is reasoned, where the card is shown. */
export function rejectCard(id) {
  for (const view of shown) if (view.id === id && view.element.isConnected) { reasonForm(cards.get(id), view); return; }
}

function decider(words, why, act, kind) {
  const made = button(words, act, kind);
  made.disabled = Boolean(why);
  if (why) made.title = plain(why);
  return made;
}

function afterwards(card, view) {
  const words = card.open ? t("It has expired and can no longer be approved.") : "";
  const back = me.decides && card.undo && ["delivered", "verified", "failed"].includes(card.status);
  return [words && h("p", { class: "faint" }, words), back && button(t("Undo…"), () => undoForm(card, view))];
}

export function button(words, act, kind = "") {
  return h("button", { type: "button", class: kind, onclick: act }, words);
}

/** Runs one request with the card's buttons off, and says what went wrong in the card. */
async function attempt(view, work) {
  view.say("");
  const buttons = view.element.querySelectorAll("button");
  const off = new Set([...buttons].filter((each) => each.disabled)); // what is not this person's stays so
  for (const each of buttons) each.disabled = true;
  try {
    await work();
    view.close();
  } catch (refusal) {
    view.say(refusal.words ?? refusal.message);
    if (refusal.status === 409 || refusal.status === 404) await refresh(view.id);
  } finally {
    for (const each of buttons) each.disabled = off.has(each);
    if (document.activeElement === document.body) view.focus();
  }
}

/** Reads the card again; silently keeps what there is when that fails. */
export async function refresh(id) {
  try { cards.put(await get(at`/api/proposals/${id}`)); } catch { /* the refusal that led here is already shown */ }
}

function decide(card, view, decision, reason) {
  return attempt(view, async () => {
    const now = await post(at`/api/proposals/${card.proposal_id}/vote`, { digest: card.digest, decision, reason });
    cards.put(now);
    announce(`${decision === "approve" ? "Approved" : "Rejected"}; now ${now.status}.`);
    view.focus();
  });
}

function formOf(view, title, fields, send, act) {
  const form = h("form", { onsubmit: (event) => { event.preventDefault(); act(new FormData(form)); } },
    h("h4", {}, title), fields,
    h("div", { class: "buttons" }, h("button", { type: "submit", class: "go" }, send),
      button(t("Never mind"), () => { view.close(); view.focus(); })));
  view.open(form);
  return form;
}

function reasonForm(card, view) {
  formOf(view, t("Reject it"), h("label", {}, t("Why"), h("input", { name: "reason", type: "text", required: true, maxlength: 500, autocomplete: "off" })),
    t("Reject"), (given) => decide(card, view, "reject", given.get("reason")));
}

function undoForm(card, view) {
  formOf(view, t("Take it back"), [h("p", { class: "faint" }, plain(card.undo)),
    h("label", {}, t("Why"), h("input", { name: "reason", type: "text", required: true, maxlength: 500, autocomplete: "off" }))],
    t("Undo"), (given) => attempt(view, async () => {
      const done = await post(at`/api/proposals/${card.proposal_id}/undo`, { reason: given.get("reason") });
      await refresh(card.proposal_id);
      announce(`Undo: ${done.effect ?? "asked"} ${done.reason ?? ""}`);
    }));
}

const SPANS = [[15, "15 minutes"], [60, "an hour"], [240, "4 hours"], [720, "12 hours"]];

function snoozeForm(card, view) {
  formOf(view, t("Show it again later"), h("label", {}, t("In"), h("select", { name: "minutes" }, SPANS.map(([minutes, words]) => h("option", { value: minutes }, words)))),
    t("Snooze"), (given) => attempt(view, async () => {
      const minutes = Number(given.get("minutes"));
      const answer = await post(at`/api/proposals/${card.proposal_id}/snooze`, { minutes });
      snoozed.put(card.proposal_id, answer?.until ?? new Date(Date.now() + minutes * 60000).toISOString());
      announce("Snoozed; it stays open and others still see it.");
    }));
}

function lendForm(view) {
  formOf(view, t("Lend your right to approve"),
    [h("label", {}, t("To"), h("input", { name: "to", type: "text", required: true, maxlength: 80, autocomplete: "off" })),
      h("label", {}, t("Hours"), h("input", { name: "hours", type: "number", required: true, min: 1, max: 8760, step: 1, value: 8 })),
      h("label", {}, t("Why"), h("input", { name: "reason", type: "text", required: true, maxlength: 500, autocomplete: "off" }))],
    t("Lend it"), (given) => attempt(view, async () => {
      const lent = await post("/api/delegations", { to: given.get("to"), hours: Number(given.get("hours")), reason: given.get("reason") });
      announce(`${plain(lent.taker)} may approve for you until ${plain(lent.until)}.`);
    }));
}

async function editForm(card, view) {
  await attempt(view, async () => { schemas ??= await get("/api/actions"); });
  const schema = schemas?.[card.kind];
  if (!schema) return;
  const fields = actionForm(card.action, schema);
  formOf(view, fields.editable ? t("Change what is to be done") : t("Nothing about this action can be changed"),
    [fields.element, h("p", { class: "faint" }, t("The edited action is a proposal of your own, judged from the beginning: somebody else approves it."))],
    t("Propose this instead"), () => attempt(view, async () => {
      const edited = await post(at`/api/proposals/${card.proposal_id}/edit`, { action: fields.read(), thread: view.element.closest("[data-thread]")?.dataset.thread ?? "floor" });
      cards.put(edited);
      await refresh(card.proposal_id);
      announce(`Proposed again as ${edited.proposal_id}, now ${edited.status}.`);
      const renewed = cardView(edited.proposal_id);
      if (!view.element.closest("[data-thread]")) { view.element.after(renewed.element); renewed.focus(); }
    }));
}
