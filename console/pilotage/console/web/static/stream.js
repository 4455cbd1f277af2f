// The event stream: one connection for every thread, resumed after the last row seen. Rows come once and in order.
import { get, whoAmI } from "./api.js";

const TYPES = ["said", "delta", "tool_call", "tool_result", "answer", "block", "done", "card", "step", "snoozed", "error", "notice"];
const REST = 60_000;
/** Milliseconds after which a hidden page lets its connection go: browsers keep only six to one server. */

/** Calls `receive` with each event after `seq`, `state` with "live", "waiting" or "signed-out". Returns {stop}. */
export function follow(seq, receive, state) {
  let source = null;
  let retry = 0;
  let rest = 0;
  let last = seq;

  function open() {
    close();
    source = new EventSource(`/api/stream?after=${last}`);
    source.onopen = () => { retry = 0; state("live"); };
    source.onerror = async () => {
      state("waiting");
      if (source?.readyState !== EventSource.CLOSED) return; // the browser tries again by itself
      close();
      try {
        if ((await whoAmI()) === null) { state("signed-out"); return; }
      } catch { /* the server is away: try again */ }
      retry = Math.min(retry + 1, 5);
      setTimeout(open, 400 * 2 ** retry);
    };
    for (const type of TYPES) source.addEventListener(type, take);
  }

  function take(message) {
    const event = JSON.parse(message.data);
    if (event.seq <= last) return;
    last = event.seq;
    receive(event);
  }

  function close() {
    source?.close();
    source = null;
  }

  function look() {
    clearTimeout(rest);
    if (document.hidden) rest = setTimeout(close, REST);
    else if (!source) open();
  }

  document.addEventListener("visibilitychange", look);
  open();
  return { stop() { document.removeEventListener("visibilitychange", look); clearTimeout(rest); close(); } };
}

/** Every event of a thread, oldest first, page by page. */
export async function history(thread) {
  const events = [];
  for (;;) {
    const after = events.at(-1)?.seq ?? 0;
    const page = await get(`/api/threads/${encodeURIComponent(thread)}/events?after=${after}&limit=500`);
    const rows = Array.isArray(page) ? page : page.events;
    events.push(...rows);
    if (rows.length < 500) return events;
  }
}
