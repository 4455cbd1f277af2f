// The catalogue: every sentence of the page is said whole, with {names} in it, and never put together from pieces.
// English is what stands in the code; another language is a table from these sentences to its own.

let table = {};
let rules = new Intl.PluralRules("en");
export const LANGUAGES = { en: "English", de: "Deutsch" };

/** Chooses the language: what the reader chose, or the first of the browser's that is known. */
export async function speak(chosen = localStorage.getItem("language")) {
  const wanted = [chosen, ...navigator.languages].map((each) => (each ?? "").slice(0, 2).toLowerCase()).find((each) => LANGUAGES[each]) ?? "en";
  document.documentElement.lang = wanted;
  rules = new Intl.PluralRules(wanted);
  table = {};
  if (wanted === "en") return;
  const answer = await fetch(`/assets/words.${wanted}.json`).catch(() => null);
  if (answer?.ok) table = await answer.json();
}

export const language = () => document.documentElement.lang || "en";

/** A sentence with its values in it, as text. */
export function t(words, values = {}) {
  return parts(words, values).join("");
}

/** A sentence of one or of many: t(n === 1 ? one : many), as the language counts. */
export function tn(count, one, many, values = {}) {
  return t(rules.select(count) === "one" ? one : many, { count: number(count), ...values });
}

/** A sentence as its parts in order, so that a value may be an element. */
export function parts(words, values = {}) {
  return (table[words] ?? words).split(/(\{\w+\})/).map((part) => {
    const name = /^\{(\w+)\}$/.exec(part)?.[1];
    return name && name in values ? values[name] : part;
  });
}

export const number = (value) => Number(value).toLocaleString(language());
