// The audit log: by incident, person, policy, step or words; what changed nothing is folded; kept as a file on request.
import { get } from "./api.js";
import { button } from "./card.js";
import { announce, fill, h, moment, plain, standing } from "./dom.js";
import { linked, refLink } from "./links.js";
import { listOf } from "./lists.js";
import { number, t } from "./words.js";

export async function auditView(view, id, query) {
  const says = h("p", { class: "says", role: "status" });
  const list = listOf({
    path: "/api/lists/audit",
    label: t("Entries of the audit log"),
    start: { changes: "true", incident: query?.get("incident") ?? "" },
    filters: [
      { name: "words", label: t("Search") }, { name: "incident", label: t("Incident") }, { name: "person", label: t("Person or agent") }, { name: "policy", label: t("Policy") },
      { name: "changes", label: t("Which"), choices: [["true", t("what changed something")], ["", t("everything")]] },
    ],
    empty: t("The log is empty."),
    said: (page, some) => [t("{some} of {count} shown", { some: number(some), count: number(page.count) }), page.folded ? t("; {count} that changed nothing are folded", { count: number(page.folded) }) : ""],
    row: (each) => h("li", {}, h("span", { class: "faint" }, each.seq, " ", moment(each.at)), " ", standing(each.label), " ", h("strong", { class: "actor" }, plain(each.actor)), " ",
      each.proposal_id ? refLink(`proposal:${each.proposal_id}`, each.proposal_id) : each.incident_id && refLink(`incident:${each.incident_id}`, each.incident_id), " ",
      h("span", {}, linked(plain(each.words)))),
  });
  const verify = async () => {
    fill(says, t("Recomputing the chain…"));
    try {
      const reply = await get("/api/show/audit?about=1");
      const said = reply.blocks.find((each) => each.kind === "pairs")?.pairs ?? {};
      fill(says, t("Whole: {whole}; {rows} entries, head {head}", { whole: plain(said.whole), rows: number(said.rows), head: plain(said.head).slice(0, 16) }));
    } catch (refusal) { fill(says, refusal.words ?? refusal.message); }
  };
  fill(view, h("header", { class: "head" }, h("h1", { tabindex: "-1" }, t("Audit")), button(t("Read again"), () => list.load()),
    button(t("Is it whole?"), verify), button(t("Export what fits"), () => keep(list.asked()))), says, list.element);
  await list.load();
  return { receive() {}, leave() {} };
}

/** Every entry that fits as JSON lines in a file, page by page. The signed export is `pilotage audit export`. */
async function keep(asked) {
  const rows = [];
  let after = "";
  do {
    const given = Object.entries({ ...asked, after, limit: 200 }).filter(([, value]) => value !== "" && value !== undefined);
    const page = await get(`/api/lists/audit?${new URLSearchParams(given)}`);
    rows.push(...page.rows);
    after = page.next;
  } while (after);
  const text = rows.map((each) => JSON.stringify(each)).join("\n");
  const link = h("a", { href: URL.createObjectURL(new Blob([`${text}\n`], { type: "application/x-ndjson" })), download: "audit.jsonl" });
  link.click();
  URL.revokeObjectURL(link.href);
  announce(t("{count} entries kept.", { count: number(rows.length) }));
}
