// One conversation, drawn from its events alone: the same rows give the same page on every reload and in every browser.
import { at, get, post } from "./api.js";
import { block } from "./blocks.js";
import { button, cardView } from "./card.js";
import { announce, byId, distance, fill, h, moment, plain, standing } from "./dom.js";
import { linked, prefectLink, refLink, short, split } from "./links.js";
import { markdown } from "./markdown.js";
import { cards, me } from "./state.js";
import { history } from "./stream.js";
import { t } from "./words.js";

const ACTIVITY_FEED = "floor"; // its id in stored conversations
const QUESTIONS = ["How are the queues?", "What failed in the last day?", "/inbox", "/forecast", "/help"];
const NEAR = 160; // pixels from the end within which new words are scrolled into view

/** The chat view of one thread, or of the newest. Returns what the page calls while it is shown. */
export async function chatView(view, thread, params) {
  const list = h("ul", { class: "threads" });
  const search = h("input", { type: "search", "aria-label": "Search the conversations", placeholder: "Search", onchange: () => listThreads() });
  const log = h("div", { id: "log", role: "log", "aria-label": "Conversation", tabindex: "0" });
  const input = h("textarea", { id: "message", rows: 2, maxlength: 8000, "aria-label": "Message", placeholder: "Ask, or /help", onkeydown: keys });
  const send = h("button", { type: "submit", class: "go" }, "Send");
  const stop = button(t("Stop answering"), interrupt);
  const composer = h("form", { id: "composer", onsubmit: (event) => { event.preventDefault(); say(); } }, input, h("div", { class: "buttons" }, send, stop));
  const says = h("p", { class: "says", role: "alert" });
  const title = h("h1", { tabindex: "-1" }, "Chat");
  const threads = h("details", { class: "side", open: window.innerWidth > 760 }, h("summary", {}, "Conversations"),
    button(t("New conversation"), () => { location.hash = "#/chat/new"; }), search, list);
  fill(view, h("div", { class: "chat" }, threads, h("section", { class: "talk" }, title, log, says, composer)));
  stop.hidden = true;

  let found = [];
  let current = null;
  await listThreads();
  current = thread === "new" ? null : thread ?? found.find((each) => each.id !== ACTIVITY_FEED && each.by === me.name)?.id ?? null;
  let conversation = null;
  let waiting = [];
  let loading = current !== null;
  const about = params.get("about") ?? "";
  if (about) input.value = about.startsWith("p-") ? `/ask ${about} ` : `/why ${about}`;

  if (current) await load();
  else {
    fill(log, h("div", { class: "empty" }, h("p", {}, "Ask about runs, failures, queues or forecasts. What changes something comes back as a card that a person decides on."),
      h("p", { class: "buttons" }, QUESTIONS.map((words) => button(words, () => { input.value = words; say(); })))));
  }
  return { receive, focus: () => (thread === "new" || about ? input : title).focus({ preventScroll: true }), message: () => input.focus() };

  async function listThreads() {
    found = await get(`/api/threads?search=${encodeURIComponent(search.value.trim())}`);
    drawThreads();
    return found;
  }

  function drawThreads() {
    fill(list, found.map((each) => h("li", {}, h("a", { href: `#/chat/${encodeURIComponent(each.id)}`, "aria-current": each.id === current ? "page" : null },
      plain(each.title || "Untitled"), h("small", {}, ` ${plain(each.by)}, ${distance(each.at)}`)))));
  }

  async function load() {
    log.dataset.thread = current;
    fill(title, plain(found.find((each) => each.id === current)?.title || "Conversation"));
    fill(log, h("p", { class: "faint" }, "Reading…"));
    try {
      const events = await history(current);
      conversation = conversationIn(log, current, turned);
      for (const event of events) conversation.take(event);
    } catch (refusal) {
      fill(log, h("p", { class: "says" }, refusal.words ?? refusal.message));
      return;
    }
    loading = false;
    for (const event of waiting) conversation.take(event);
    waiting = [];
    toEnd();
    drawThreads();
  }

  function receive(event) {
    if (event.thread !== current) {
      if (event.type === "said") listThreads().catch(() => {});
      return;
    }
    if (loading) { waiting.push(event); return; }
    const pane = scroller();
    const near = pane.scrollHeight - pane.scrollTop - pane.clientHeight < NEAR;
    conversation?.take(event);
    if (near) toEnd();
  }

  /** What scrolls: the conversation, or on a phone the whole page. */
  function scroller() {
    return getComputedStyle(log).overflowY === "visible" ? document.scrollingElement : log;
  }

  function toEnd() {
    const pane = scroller();
    pane.scrollTop = pane.scrollHeight;
  }

  function turned(running) {
    stop.hidden = !running;
    if (!running) announce("The answer is complete.");
  }

  async function say() {
    const words = input.value.trim();
    if (!words) return;
    if (words === "/clear" || words === "/exit") { leave(words); return; }
    fill(says);
    send.disabled = true;
    try {
      if (current === null) {
        const made = await post("/api/threads", { title: words.slice(0, 80) });
        current = made.id;
        await post(at`/api/threads/${current}/messages`, { text: words });
        input.value = "";
        window.history.replaceState(null, "", `#/chat/${encodeURIComponent(current)}`);
        loading = true;
        await listThreads();
        await load();
      } else {
        await post(at`/api/threads/${current}/messages`, { text: words });
        input.value = "";
      }
      toEnd();
    } catch (refusal) {
      fill(says, refusal.words ?? refusal.message);
    } finally {
      send.disabled = false;
      input.focus();
    }
  }

  /** What only a frontend can do: an empty screen, or away from the conversation. It stays as it is. */
  function leave(words) {
    input.value = "";
    if (words === "/exit") location.hash = "#/chat/new";
    else for (const each of [...log.children]) each.remove();
  }

  async function interrupt() {
    try { await post(at`/api/threads/${current}/interrupt`); } catch (refusal) { fill(says, refusal.words ?? refusal.message); }
  }

  function keys(event) {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); say(); }
    if (event.key === "Escape" && !stop.hidden) interrupt();
  }
}

/** Draws events into the element as they come. A row that was taken before changes nothing. */
function conversationIn(element, thread, turned) {
  const turns = new Map();
  const placed = new Set(); // the cards that are somewhere in it; who asks for one again gets it again, below
  let last = 0;
  fill(element);
  return { take };

  function take(event) {
    if (event.seq <= last) return;
    last = event.seq;
    const { payload } = event;
    if (event.type === "said") {
      turns.set(event.seq, turnOf(event));
      turned(true);
      return;
    }
    const turn = turns.get(payload.turn);
    switch (event.type) {
      case "delta": turn?.words(payload.text, event.by); break;
      case "tool_call": turn?.call(payload); break;
      case "tool_result": turn?.result(payload); break;
      case "answer": turn?.answer(payload, event.by); turned(false); break;
      case "block": (turn?.body ?? element).append(block(payload.block)); break;
      case "done": turn?.done(payload); turned(false); break;
      case "error": (turn?.body ?? element).append(h("p", { class: "says", role: "alert" }, linked(plain(payload.text)))); break;
      case "draft": (turn?.body ?? element).append(draftView(payload, thread)); break;
      case "card": place(payload.card, turn); break;
      case "step": element.append(stepLine(event)); break;
      case "snoozed": element.append(h("p", { class: "step" }, moment(event.at), ` ${plain(event.by)} wants to see `, refLink(`proposal:${payload.proposal_id}`), " again ", distance(payload.until))); break;
      case "notice": element.append(h("p", { class: "step notice" }, moment(event.at), " ", plain(payload.text))); break;
    }
  }

  function place(card, turn) {
    cards.put(card);
    const here = turn?.placed ?? placed;
    if (here.has(card.proposal_id)) return;
    here.add(card.proposal_id);
    placed.add(card.proposal_id);
    (turn?.body ?? element).append(cardView(card.proposal_id).element);
  }

  function turnOf(event) {
    const body = h("div", { class: "said-back" });
    const words = h("div", { class: "prose" });
    const tools = h("ol", { class: "tools" });
    const article = h("article", { class: "turn", "aria-busy": "true" },
      h("header", {}, h("strong", {}, plain(event.by)), " ", moment(event.at)),
      h("p", { class: "question" }, linked(plain(event.payload.text))), tools, words, body);
    element.append(article);
    let streamed = "";
    const calls = new Map();
    return {
      body,
      placed: new Set(),
      words(piece) {
        streamed += piece;
        fill(words, markdown(streamed));
      },
      call(payload) {
        const item = h("li", { value: payload.n }, callLine(payload, null));
        calls.set(payload.n, { payload, item });
        tools.append(item);
      },
      result(payload) {
        const known = calls.get(payload.n);
        const item = known?.item ?? tools.appendChild(h("li", { value: payload.n }));
        fill(item, callLine(known?.payload ?? payload, payload));
      },
      answer(payload, by) {
        streamed = payload.text;
        article.setAttribute("aria-busy", "false");
        fill(words, badge(payload, by), markdown(payload.text), evidence(payload));
      },
      done(payload) {
        article.setAttribute("aria-busy", "false");
        if (!payload.ok) article.classList.add("failed");
      },
    };
  }
}

/** An action that nobody has sent: its words, what policy would say, and the button of the one person who may send it. */
function draftView(payload, thread) {
  const { draft } = payload;
  const says = h("p", { class: "says", role: "alert" });
  const send = button(t("Send as a proposal"), async () => {
    send.disabled = true;
    try {
      await post(at`/api/threads/${thread}/messages`, { text: `/send ${draft.draft_id}` });
    } catch (refusal) {
      fill(says, refusal.words ?? refusal.message);
      send.disabled = false;
    }
  });
  return h("section", { class: "block", "aria-label": "Draft" }, h("h4", {}, `Draft ${plain(draft.draft_id)}: not handed in`),
    h("p", {}, linked(plain(payload.words))),
    h("p", { class: "faint" }, `Policy would say: ${plain(draft.policy?.outcome ?? draft.policy?.error ?? "not known")}.`),
    payload.for === me.name ? send : h("p", { class: "faint" }, `Only ${plain(payload.for)} can send it.`), says);
}

function callLine(call, result) {
  const given = Object.entries(call.arguments ?? {}).map(([key, value]) => `${key}=${typeof value === "string" ? value : JSON.stringify(value)}`).join(", ");
  const name = h("code", {}, `${plain(call.tool)}(${plain(given)})`);
  if (!result) return [name, h("span", { class: "faint" }, " looking…")];
  const rows = result.rows ?? rowsIn(result.result);
  return h("details", {}, h("summary", {}, name, h("span", { class: "faint" }, ` ${rows === null ? "" : `${rows} rows, `}${result.seconds ?? 0} s`)),
    h("pre", { tabindex: "0" }, JSON.stringify(result.result, null, 1)));
}

function rowsIn(result) {
  const lists = Object.values(result ?? {}).filter(Array.isArray);
  return lists.length ? Math.max(...lists.map((each) => each.length)) : null;
}

const WHO = { model: "model", rules: "rules, no model", memory: "memory of earlier incidents, no model" };

/** Who answered, in a word that colour only repeats. */
function badge(payload, by) {
  const who = payload.by ?? by;
  const model = payload.model?.name ?? payload.model ?? "";
  const mock = Boolean(payload.mock ?? payload.model?.mock);
  return h("p", { class: "badges" },
    h("span", { class: `badge ${plain(who)}` }, `${WHO[who] ?? plain(who)}${who === "model" && model ? ` ${plain(model)}` : ""}`),
    mock && h("span", { class: "badge mock" }, "MOCK: a script, no language model"),
    payload.opinion && h("span", { class: "badge opinion" }, "opinion: nothing backs it"));
}

function evidence(payload) {
  const citations = payload.citations ?? [];
  const gaps = payload.gaps ?? [];
  const opinions = payload.opinion ? [] : (payload.claims ?? []).filter((claim) => claim.opinion);
  const forecasts = payload.forecasts ?? [];
  return [
    citations.length > 0 && h("section", { class: "evidence", "aria-label": "Evidence" }, h("h4", {}, "Evidence"),
      h("ul", {}, citations.map((each) => h("li", { "data-key": each.key, tabindex: "-1" }, citation(each))))),
    forecasts.length > 0 && h("section", { class: "evidence", "aria-label": "Confidence" }, h("h4", {}, "Chances of failing, by the measured forecast"),
      h("ul", {}, forecasts.map((each) => h("li", {}, refLink(`run:${each.run_id}`, `run ${each.run_id.slice(0, 8)}`), `: ${Math.round(each.p_fail * 100)} % says ${plain(each.model)}`)))),
    opinions.length > 0 && h("section", { class: "gaps", "aria-label": "Opinion" }, h("h4", {}, "Opinion: nothing that was looked up backs this"),
      h("ul", {}, opinions.map((each) => h("li", {}, plain(each.text))))),
    gaps.length > 0 && h("section", { class: "gaps", "aria-label": "Could not be checked" }, h("h4", {}, "I could not check"),
      h("ul", {}, gaps.map((each) => h("li", {}, linked(plain(each)))))),
  ];
}

function citation(each) {
  const given = Object.values(each.arguments ?? {}).map(plain).join(", ");
  const refs = (each.refs ?? []).map((ref) => (typeof ref === "string" ? { ref } : ref));
  const statements = [each.sql ?? []].flat();
  return [
    h("code", {}, `[${plain(each.key)}] ${plain(each.tool)}(${given})`), " ",
    refs.map(({ ref }, n) => {
      const [kind, key] = split(ref);
      return [n > 0 && ", ", refLink(ref, `${kind} ${short(kind, key)}`), kind === "run" && [" ", prefectLink("run", key)]];
    }),
    statements.length > 0 && h("details", {}, h("summary", {}, "the SQL that was asked"), h("pre", { tabindex: "0" }, statements.map(plain).join(";\n\n")))];
}

function stepLine(event) {
  const { payload } = event;
  return h("p", { class: "step" }, moment(payload.at ?? event.at), " ", standing(payload.step), " ", h("span", { class: "actor" }, plain(event.by)), " ",
    linked(plain(payload.words)), " ", payload.proposal_id && refLink(`proposal:${payload.proposal_id}`, payload.proposal_id));
}
