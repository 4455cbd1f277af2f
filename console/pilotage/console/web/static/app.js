// The page itself: signing in, going from view to view, the banner, the kill switch, the keys.
import { get, post, whenSignedOut, whoAmI } from "./api.js";
import { chatView } from "./chat.js";
import { byId, fill, h, plain } from "./dom.js";
import { button } from "./card.js";
import { prefectAt } from "./links.js";
import { cards, me, setMe, snoozed } from "./state.js";
import { follow } from "./stream.js";
import { auditView } from "./audit.js";
import { inboxView } from "./inbox.js";
import { incidentsView, incidentView } from "./incidents.js";
import { nowView } from "./now.js";
import { runsView, runView } from "./runs.js";
import { forecastView, kpiView, proposalView, queuesView } from "./views.js";
import { LANGUAGES, language, number, parts, speak, t } from "./words.js";

await speak();

const VIEWS = [
  { name: "now", key: "o", words: t("Now"), open: nowView },
  { name: "inbox", key: "i", words: t("Inbox"), open: inboxView },
  { name: "incidents", key: "n", words: t("Incidents"), open: incidentsView },
  { name: "runs", key: "u", words: t("Runs"), open: runsView },
  { name: "chat", key: "c", words: t("Chat"), open: chatView },
  { name: "queues", key: "f", words: t("Queues"), open: queuesView },
  { name: "forecast", key: "r", words: t("Forecast"), open: forecastView },
  { name: "kpi", key: "k", words: t("Numbers"), open: kpiView },
  { name: "audit", key: "a", words: t("Audit"), open: auditView },
];
const PART_OF = { incident: "incidents", run: "runs", proposal: "inbox" };
const INSIDE = { run: runView, proposal: proposalView, incident: incidentView };

let showing = null;
let going = 0;
let stream = null;
let waiting = 0;
let here = "";

// -- signing in

async function begin() {
  const once = new URLSearchParams(location.hash.slice(1)).get("code");
  if (once) {
    history.replaceState(null, "", "#/now"); // the code works once, and is gone from the address at once
    try {
      await post("/api/sign-in", { code: once });
    } catch (refusal) {
      return door(t("The link did not sign you in: {why}", { why: refusal.message }));
    }
  }
  try {
    const found = await whoAmI();
    return found ? enter(found) : door("");
  } catch (refusal) {
    return door(refusal.message);
  }
}

/** What was under way when somebody signed out is refused too; it does not say so over the door that is there. */
function ended() {
  if (!byId("shell").hidden) door(t("Your session has ended. Sign in again; nothing is lost."));
}

function door(words) {
  stream?.stop();
  stream = null;
  leave();
  byId("shell").hidden = true;
  const says = h("p", { class: "says", role: "alert" }, words);
  const elsewhere = h("p", { class: "elsewhere", hidden: true });
  const form = h("form", { onsubmit: async (event) => {
    event.preventDefault();
    const given = new FormData(form);
    try {
      await post("/api/sign-in", { name: given.get("name"), password: given.get("password") });
      const found = await whoAmI();
      if (found) enter(found);
      else fill(says, t("You are not signed in: does the browser take cookies from this page?"));
    } catch (refusal) {
      fill(says, refusal.message);
    }
  } },
  h("h1", { tabindex: "-1" }, h("img", { src: "/assets/icon.svg", alt: "", width: 32, height: 32 }), " pilotage"),
  h("p", {}, parts("Open the one-time link that {command} wrote, or sign in with your name.", { command: h("code", {}, "pilotage serve") })),
  says,
  h("label", {}, t("Name"), h("input", { name: "name", type: "text", autocomplete: "username", required: true })),
  h("label", {}, t("Password"), h("input", { name: "password", type: "password", autocomplete: "current-password", required: true })),
  h("button", { type: "submit", class: "go" }, t("Sign in")),
  elsewhere);
  fill(byId("door"), form).hidden = false;
  get("/api/sign-in/ways").then((ways) => {
    if (ways.oidc) fill(elsewhere, h("a", { href: "/api/sign-in/oidc" }, t("Sign in with your team's account"))).hidden = false;
  }).catch(() => {});
  form.querySelector("input").focus();
}

async function enter(found) {
  setMe(found);
  prefectAt(found.ui);
  fill(byId("door")).hidden = true;
  byId("shell").hidden = false;
  drawNav();
  drawWho();
  banner(found.mode, found.stopped);
  stream?.stop();
  const opened = go(); // what is looked at first comes first
  const threads = await get("/api/threads?search=&limit=1");
  const from = Math.max(0, ...threads.map((thread) => thread.last_seq));
  stream?.stop();
  stream = follow(from, receive, connection);
  countInbox();
  await opened;
}

// -- what comes in

function receive(event) {
  if (event.type === "card") cards.put(event.payload.card);
  if (event.type === "step") countSoon();
  if (event.type === "snoozed" && event.by === me.name) snoozed.put(event.payload.proposal_id, event.payload.until);
  if (event.type === "notice" && event.payload.mode !== undefined) banner(event.payload.mode, event.payload.stopped);
  showing?.receive?.(event);
}

function connection(state) {
  document.body.dataset.stream = state;
  const light = byId("connection");
  if (light) fill(light, state === "live" ? t("● live") : t("○ waiting for the server"));
  if (state === "signed-out") ended();
}

let counting = 0;

/** How many wait, as the ledger counts them; asked for again a moment after something changed. */
async function countInbox() {
  try {
    const page = await get("/api/lists/proposals?status=needs_approval&limit=1");
    waiting = page.count;
    drawCount();
  } catch { /* the inbox itself says so */ }
}

function countSoon() {
  clearTimeout(counting);
  counting = setTimeout(countInbox, 700);
}

cards.listen(countSoon);
snoozed.listen(countSoon);

function drawCount() {
  const badge = byId("inbox-count");
  if (badge) fill(badge, waiting > 0 && [h("span", { "aria-hidden": "true" }, ` ${number(waiting)}`), h("span", { class: "unseen" }, t(", {count} waiting", { count: number(waiting) }))]);
  document.title = `${waiting ? `(${waiting}) ` : ""}${here ? `${here} · ` : ""}pilotage`;
}

// -- going from view to view

function leave() {
  showing?.leave?.();
  showing = null;
}

async function go() {
  if (!location.hash) history.replaceState(null, "", "#/now");
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, id] = path.split("/").map(decodeURIComponent);
  const chosen = VIEWS.find((view) => view.name === (name || "now"));
  const open = chosen?.open ?? INSIDE[name];
  for (const link of document.querySelectorAll("#nav a")) {
    if (link.dataset.view === (chosen?.name ?? (PART_OF[name] ?? ""))) {
      link.setAttribute("aria-current", "page");
      link.scrollIntoView({ block: "nearest", inline: "center" });
    } else link.removeAttribute("aria-current");
  }
  here = chosen?.words ?? (open ? plain(name) : "");
  drawCount();
  leave();
  const mine = ++going;
  const held = document.activeElement;
  const view = byId("view");
  view.dataset.name = name || "now";
  if (!open) { fill(view, h("h1", {}, "There is no such view")); return; }
  fill(view, h("p", { class: "faint loading", role: "status" }, t("Reading…")));
  try {
    const opened = await open(view, id, new URLSearchParams(query));
    if (mine !== going) { opened?.leave?.(); return; }
    showing = opened;
  } catch (refusal) {
    if (mine === going) fill(view, h("p", { class: "says", role: "alert" }, refusal.words ?? refusal.message));
    return;
  }
  if (![held, document.body].includes(document.activeElement)) return; // the reader has moved on meanwhile
  if (showing?.focus) showing.focus();
  else view.querySelector("h1")?.focus();
}

function drawNav() {
  fill(byId("nav"), VIEWS.map((view) => h("li", {}, h("a", { href: `#/${view.name}`, "data-view": view.name }, view.words,
    view.name === "inbox" && h("span", { id: "inbox-count" })))));
}

function drawWho() {
  fill(byId("who"),
    h("p", {}, h("strong", {}, plain(me.name)), h("span", { class: "faint" }, ` ${me.roles.join(", ")}`), h("br"),
      h("span", { id: "mode" }), " ", h("span", { class: "faint", title: t("Times are shown in this zone") }, Intl.DateTimeFormat().resolvedOptions().timeZone), " ", h("span", { id: "connection", class: "faint" }, "○ waiting for the server")),
    h("div", { class: "buttons" },
      h("button", { type: "button", id: "stop", class: "no", onclick: askToStop }, t("STOP")),
      button(t("Theme"), turnTheme), button(t("Keys"), keysDialog, "keys"),
      h("select", { "aria-label": t("Language"), class: "language", onchange: (event) => { localStorage.setItem("language", event.target.value); location.reload(); } },
        Object.entries(LANGUAGES).map(([value, words]) => h("option", { value, selected: value === language() }, words))),
      button(t("Sign out"), async () => { await post("/api/sign-out").catch(() => {}); door(t("You are signed out.")); })));
}

// -- the kill switch

function banner(mode, stopped) {
  me.mode = mode ?? me.mode;
  me.stopped = stopped ?? "";
  const bar = byId("banner");
  bar.hidden = !me.stopped;
  if (me.stopped) fill(bar, h("strong", {}, "■ STOPPED. "), `Nothing is injected: ${plain(me.stopped)} `, me.decides && button(t("Vote to resume"), resume));
  const shown = byId("mode");
  if (shown) fill(shown, parts("mode {mode}", { mode: h("strong", {}, plain(me.mode)) }));
  const stop = byId("stop");
  if (stop) stop.hidden = Boolean(me.stopped) || !me.decides;
}

function askToStop() {
  const reason = h("input", { name: "reason", type: "text", maxlength: 300, required: true, autocomplete: "off" });
  dialog(t("Stop everything"), [h("p", {}, t("Nothing more is admitted or delivered until it is resumed. Runs that are under way go on.")), h("label", {}, t("Why"), reason)],
    "Stop", async () => {
      const done = await post("/api/stop", { reason: reason.value });
      banner(me.mode, done.stopped ?? reason.value);
    });
}

async function resume() {
  dialog("Vote to resume", [h("p", {}, t("Starting again takes the votes of as many people as the guardrails ask for."))], "Vote to resume", async () => {
    const done = await post("/api/resume");
    if (done.votes_missing) byId("banner").append(h("span", {}, `${done.votes_missing} more must ask. `));
    else banner(me.mode, done.stopped ?? "");
  });
}

function dialog(words, content, send, act) {
  const box = byId("dialog");
  const says = h("p", { class: "says", role: "alert" });
  fill(box, h("form", { onsubmit: async (event) => {
    event.preventDefault();
    try { await act?.(); box.close(); } catch (refusal) { fill(says, refusal.words ?? refusal.message); }
  } },
  h("h2", { id: "dialog-title" }, words), content, says,
  h("div", { class: "buttons" }, send && h("button", { type: "submit", class: send === "Stop" ? "no" : "go" }, send), button(send ? "Never mind" : "Close", () => box.close()))));
  box.showModal();
}

// -- theme and keys

function turnTheme() {
  const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  theme(dark ? "light" : "dark");
}

function theme(name) {
  document.documentElement.dataset.theme = name;
  localStorage.setItem("theme", name);
}

const keysOn = () => localStorage.getItem("keys") !== "off";

function keysDialog() {
  const on = h("input", { type: "checkbox", checked: keysOn(), onchange: () => localStorage.setItem("keys", on.checked ? "on" : "off") });
  const row = (keys, words) => h("tr", {}, h("th", { scope: "row" }, keys.map((key) => [h("kbd", {}, key), " "])), h("td", {}, words));
  dialog("Keys", [h("table", {}, VIEWS.map((view) => row(["g", view.key], view.words)),
    row(["/"], t("write a message")), row(["j"], t("next row or card")), row(["k"], t("row or card before")), row(["a"], t("approve the row of the inbox that is open")), row(["r"], t("reject it, with a reason")), row(["x"], t("choose it for one answer to many")), row(["s"], "STOP"), row(["?"], "this list"), row(["Esc"], "close, or stop the answer")),
  h("label", {}, on, " single keys work when no field has the focus")], "", null);
}

let before = "";

function key(event) {
  const field = event.target.closest?.("input, textarea, select, dialog");
  if (field || event.ctrlKey || event.altKey || event.metaKey || !keysOn() || byId("shell").hidden) return;
  const view = before === "g" && VIEWS.find((each) => each.key === event.key);
  before = event.key === "g" && before !== "g" ? "g" : "";
  if (before) { setTimeout(() => { before = ""; }, 1500); return; }
  if (view) location.hash = `#/${view.name}`;
  else if (showing?.key?.(event.key)) event.preventDefault();
  else if (event.key === "/") { if (showing?.message) showing.message(); else location.hash = "#/chat"; }
  else if (event.key === "?") keysDialog();
  else if (event.key === "s" && !byId("stop").hidden) askToStop();
  else if (event.key === "j" || event.key === "k") nextCard(event.key === "j" ? 1 : -1);
  else return;
  event.preventDefault();
}

function nextCard(step) {
  const found = [...document.querySelectorAll("article.card, .inbox > li > details > summary")].filter((each) => each.offsetParent);
  const now = found.findIndex((each) => each === document.activeElement || (each.matches("article") && each.contains(document.activeElement)));
  const next = found[now < 0 ? (step > 0 ? 0 : found.length - 1) : Math.max(0, Math.min(found.length - 1, now + step))];
  next?.focus();
  next?.scrollIntoView({ block: "nearest" });
}

if (localStorage.getItem("theme")) document.documentElement.dataset.theme = localStorage.getItem("theme");
whenSignedOut(ended);
window.addEventListener("hashchange", () => {
  if (location.hash.startsWith("#code=")) begin();
  else if (!byId("shell").hidden) go();
});
document.addEventListener("keydown", key);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address names views, so it must not become #view
  byId(byId("shell").hidden ? "door" : "view").focus();
});
begin();
