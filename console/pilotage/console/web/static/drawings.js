// Pictures that the server draws as SVG, taken apart and built again here from the few elements a drawing needs.
import { get, post } from "./api.js";

const SVG = "http://www.w3.org/2000/svg";
const ELEMENTS = new Set(["svg", "g", "title", "desc", "rect", "line", "path", "circle", "polyline", "text", "tspan", "a"]);
const ATTRIBUTES = new Set(["viewBox", "role", "aria-label", "class", "x", "y", "x1", "y1", "x2", "y2", "cx", "cy", "r", "rx", "width",
  "height", "d", "points", "transform", "text-anchor", "dominant-baseline", "href", "tabindex"]);

/** The drawing at a path, as wide as the window allows. With `body` it is posted. */
export async function drawing(path, body, query = {}) {
  const width = Math.max(300, Math.min(1000, (document.getElementById("view")?.clientWidth ?? 700) - 34));
  const source = body ? await post(path, { ...body, width }) : await get(`${path}?${new URLSearchParams({ ...query, width })}`);
  const parsed = new DOMParser().parseFromString(source, "image/svg+xml").documentElement;
  return copied(parsed) ?? document.createTextNode("The drawing could not be read.");
}

function copied(from) {
  if (from.namespaceURI !== SVG || !ELEMENTS.has(from.localName)) return null;
  const to = document.createElementNS(SVG, from.localName);
  for (const { name, value } of from.attributes) {
    if (ATTRIBUTES.has(name) && (name !== "href" || value.startsWith("#/"))) to.setAttribute(name, value);
  }
  for (const child of from.childNodes) {
    const made = child.nodeType === Node.TEXT_NODE ? document.createTextNode(child.data) : child.nodeType === Node.ELEMENT_NODE ? copied(child) : null;
    if (made) to.append(made);
  }
  return to;
}
