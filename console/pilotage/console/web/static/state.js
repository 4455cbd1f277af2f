// What the page knows, all of it from the server: who is signed in, the cards, what was snoozed. Reloading loses nothing.

function kept() {
  const values = new Map();
  const listeners = new Set();
  return {
    get: (key) => values.get(key),
    has: (key) => values.has(key),
    all: () => [...values.values()],
    put(key, value) {
      values.set(key, value);
      for (const listener of listeners) listener(key);
    },
    listen(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

const store = kept();
/** Proposals by id. A later card replaces an earlier one. */
export const cards = { ...store, put: (card) => store.put(card.proposal_id, card) };
/** Proposal id to when it is to be shown again. */
export const snoozed = kept();

/** Whether this person does not want to see the card yet. */
export const sleeping = (id) => new Date(snoozed.get(id) ?? 0) > new Date();

/** Who is signed in; `decides` is false for those who only look. The API decides. */
export const me = { name: "", roles: [], mode: "", stopped: "", decides: false };

export function setMe(found) {
  Object.assign(me, { roles: [], ...found });
  me.decides = me.roles.some((role) => role !== "viewer" && role !== "agent");
}
