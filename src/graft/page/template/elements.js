// The data, and short ways to make elements. Text is only ever set as text.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const MINUS = "−";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) if (value !== null && value !== false) node.setAttribute(name, value);
  for (const child of children.flat(Infinity)) if (child !== null) node.append(child);
  return node;
}
const html = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);
const svg = (name, attributes = {}, ...children) => fill(document.createElementNS(SVG, name), attributes, children);

// The second eight contestants have the colors of the first again, and dashed lines.
const contestants = data.contestants.map(([name, color, shape, hollow], at) => ({ name, color, shape, hollow, line: `curve c${color}${at % 16 > 7 ? " dashed" : ""}` }));

// A contestant's mark at a place of a chart, or inline before its name.
const mark = (who, x, y) => svg("path", { d: data.shapes[who.shape], class: `mark c${who.color}${who.hollow ? " hollow" : ""}`, transform: `translate(${x} ${y})` });
const inlineMark = (who) => svg("svg", { class: `mark c${who.color}${who.hollow ? " hollow" : ""}`, viewBox: "-8 -8 16 16", "aria-hidden": "true" }, svg("path", { d: data.shapes[who.shape] }));
const whoIs = (who) => html("span", { class: "who" }, inlineMark(who), html("span", {}, who.name));

const fixed = (value, digits) => value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits }).replace("-", MINUS);
const score = (value) => fixed(value, data.metric.digits);

const canvas = document.createElement("canvas").getContext("2d");
function textWidth(text, size = 12.5) {
  canvas.font = `${size}px ${getComputedStyle(document.body).fontFamily}`;
  return canvas.measureText(text).width;
}
