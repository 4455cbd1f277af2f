// A form for one typed action, made from its JSON schema. What it names stays as it is; its arguments can be changed.
import { h, plain } from "./dom.js";

const FIXED = /^(kind|.*_id|pool|queue|busy_queue|starved_queue|scope|name)$/;

/** {element, read()}: the fields, and the edited action. `read` throws an Error in words when a field is not valid. */
export function actionForm(action, schema) {
  const fields = Object.entries(schema.properties ?? {}).filter(([name]) => name !== "kind").map(([name, spec]) =>
    FIXED.test(name) ? { name, element: fixed(name, action[name]), read: () => action[name] } : field(name, resolved(spec, schema), action[name], schema));
  return {
    element: h("div", { class: "fields" }, fields.map((each) => each.element)),
    read: () => Object.fromEntries([["kind", action.kind],
      ...fields.map((each) => [each.name, each.read()]).filter(([, value]) => value !== undefined)]),
    editable: fields.some((each) => !FIXED.test(each.name)),
  };
}

function resolved(spec, schema) {
  const target = spec.$ref ?? spec.allOf?.[0]?.$ref;
  return target ? { ...schema.$defs[target.split("/").pop()], ...spec } : spec;
}

const titled = (name) => plain(name).replaceAll("_", " ");

function fixed(name, value) {
  return value === undefined || value === "" ? null : h("p", { class: "fixed" }, `${titled(name)}: `, h("code", {}, value));
}

function field(name, spec, value, schema) {
  if (spec.type === "array") return list(name, spec, value ?? [], schema);
  const [input, read] = control(name, spec, value ?? spec.default);
  const range = [spec.minimum !== undefined && `at least ${spec.minimum}`, spec.maximum !== undefined && `at most ${spec.maximum}`].filter(Boolean).join(", ");
  const hint = spec.format === "duration" ? "such as 90s, 5m, 2h" : spec.format === "date-time" ? "in your time zone" : range;
  return { name, read, element: h("label", {}, titled(name), hint && h("small", {}, ` (${hint})`), input) };
}

function control(name, spec, value) {
  if (spec.enum) {
    const select = h("select", { name }, spec.enum.map((each) => h("option", { value: each }, titled(each))));
    select.value = value;
    return [select, () => select.value];
  }
  if (spec.type === "boolean") {
    const box = h("input", { name, type: "checkbox", checked: Boolean(value) });
    return [box, () => box.checked];
  }
  if (spec.type === "integer" || spec.type === "number") {
    const input = h("input", { name, type: "number", min: spec.minimum, max: spec.maximum, step: spec.type === "integer" ? 1 : "any", required: true, value: value ?? "" });
    return [input, () => number(name, input)];
  }
  if (spec.format === "duration") {
    const input = h("input", { name, type: "text", required: true, autocomplete: "off", value: shortened(value) });
    return [input, () => duration(name, input.value)];
  }
  if (spec.format === "date-time") {
    const input = h("input", { name, type: "datetime-local", step: 1, required: true, value: local(value) });
    return [input, () => isoTime(name, input.value)];
  }
  const input = h("input", { name, type: "text", autocomplete: "off", maxlength: spec.maxLength, value: value === null || value === undefined ? "" : typeof value === "string" ? value : JSON.stringify(value) });
  return [input, () => (spec.anyOf ? loose(input.value) : input.value)];
}

function list(name, spec, values, schema) {
  const item = resolved(spec.items ?? {}, schema);
  const rows = new Set();
  const box = h("div", {});
  const add = (value) => {
    const fields = Object.entries(item.properties ?? {}).map(([key, inner]) => {
      const [input, read] = control(key, resolved(inner, schema), value[key]);
      return { key, read, element: h("label", {}, titled(key), input) };
    });
    const row = { fields, element: h("div", { class: "row" }, fields.map((each) => each.element),
      h("button", { type: "button", onclick: () => { rows.delete(row); row.element.remove(); } }, "Remove")) };
    rows.add(row);
    box.append(row.element);
  };
  values.forEach(add);
  return {
    name,
    read: () => [...rows].map((row) => Object.fromEntries(row.fields.map((each) => [each.key, each.read()]))),
    element: h("fieldset", {}, h("legend", {}, titled(name)), box, h("button", { type: "button", onclick: () => add({}) }, "Add")),
  };
}

function number(name, input) {
  const value = Number(input.value);
  if (input.value.trim() === "" || !Number.isFinite(value)) throw new Error(`${titled(name)}: give a number.`);
  return value;
}

function loose(words) {
  try { return JSON.parse(words); } catch { return words; }
}

/** "2h", "90 s" or ISO 8601 as ISO 8601. */
export function duration(name, words) {
  const text = words.trim();
  if (/^P(?=.)(\d+D)?(T(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?$/i.test(text)) return text.toUpperCase();
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)\s*([smhd])/gi)];
  if (!parts.length || text.replace(/(\d+(?:\.\d+)?)\s*([smhd])/gi, "").trim() !== "") throw new Error(`${titled(name)}: give a span such as 90s, 5m or 2h.`);
  const unit = { s: 1, m: 60, h: 3600, d: 86400 };
  return `PT${parts.reduce((sum, [, count, each]) => sum + Number(count) * unit[each.toLowerCase()], 0)}S`;
}

function shortened(iso) {
  const found = /^P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?$/.exec(iso ?? "");
  if (!found) return iso ?? "";
  return ["d", "h", "m", "s"].map((unit, n) => (Number(found[n + 1] ?? 0) ? `${found[n + 1]}${unit}` : "")).filter(Boolean).join(" ") || "0s";
}

function local(iso) {
  const at = new Date(iso ?? "");
  if (Number.isNaN(at.getTime())) return "";
  return new Date(at.getTime() - at.getTimezoneOffset() * 60000).toISOString().slice(0, 19);
}

function isoTime(name, words) {
  const at = new Date(words);
  if (Number.isNaN(at.getTime())) throw new Error(`${titled(name)}: give a date and a time.`);
  return at.toISOString();
}
