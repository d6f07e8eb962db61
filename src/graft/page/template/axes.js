// What every chart has: a frame with a title for those who cannot see it, scales, ticks, and a new drawing when the width changes.
let frames = 0;

function frame(title, text, width, height) {
  const id = `chart-${(frames += 1)}`;
  return svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-labelledby": `${id}-t ${id}-d` },
    svg("title", { id: `${id}-t` }, title), svg("desc", { id: `${id}-d` }, text));
}

// Draw now, and again whenever the place has another width.
function plot(place, draw) {
  if (!place) return () => {};
  let width = 0;
  const again = () => { if (width) place.replaceChildren(draw(width)); };
  new ResizeObserver(() => {
    const now = Math.floor(place.clientWidth);
    if (now && now !== width) { width = now; again(); }
  }).observe(place);
  return again;
}

function niceTicks(low, high, count) {
  const rough = (high - low) / Math.max(1, count), power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough);
  const ticks = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at += 1) ticks.push(at * step);
  return { ticks, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

function linear(low, high, from, to, count = 5) {
  if (high <= low) { low -= 0.5; high += 0.5; }
  const at = (value) => from + ((value - low) / (high - low)) * (to - from);
  return { at, low, high, ...niceTicks(low, high, count) };
}

// A logarithmic scale; zeros get a place of their own before it.
function logarithmic(values, from, to) {
  const positive = values.filter((value) => value > 0), zero = values.some((value) => value === 0);
  const low = Math.log10(Math.min(...positive)) - 0.15, high = Math.log10(Math.max(...positive)) + 0.15;
  const start = zero ? from + 44 : from;
  const at = (value) => (value > 0 ? start + ((Math.log10(value) - low) / (high - low)) * (to - start) : from + 14);
  let ticks = [];
  for (let power = Math.ceil(low); power <= high; power += 1) ticks.push(10 ** power);
  if (ticks.length < 2) ticks = niceTicks(10 ** low, 10 ** high, 4).ticks.filter((tick) => tick > 0);
  while (ticks.length > 1 && (to - start) / ticks.length < 52) ticks = ticks.filter((_, place) => place % 2 === 0);
  return { at, ticks: zero ? [0, ...ticks] : ticks, zero, start, log: true };
}

const spans = (values) => { const positive = values.filter((value) => value > 0); return positive.length > 1 && values.every((value) => value >= 0) && Math.max(...positive) / Math.min(...positive) >= 20; };

const PREFIXES = [[1e18, "E"], [1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
function prefixed(value, unit) {
  const [size, prefix] = PREFIXES.find(([least]) => Math.abs(value) >= least * 0.9999) ?? [1, ""];
  const text = String(Number((value / size).toPrecision(3))).replace("-", MINUS);
  return `${text}${prefix || unit ? " " : ""}${prefix}${unit}`.trim();
}

const label = (x, y, text, attributes = {}) => svg("text", { x, y, ...attributes }, text);

// Horizontal guides with their values, and the axis' name above them.
function yAxis(scale, left, right, name, digits = scale.digits) {
  return svg("g", { class: "axis" },
    scale.ticks.map((tick) => [svg("line", { x1: left, x2: right, y1: scale.at(tick), y2: scale.at(tick), class: "guide" }), label(left - 8, scale.at(tick) + 4, fixed(tick, digits), { "text-anchor": "end" })]),
    label(0, 11, name, { class: "name" }));
}

function xAxis(scale, y, left, right, text, name) {
  return svg("g", { class: "axis" },
    svg("line", { x1: scale.zero ? scale.start - 8 : left, x2: right, y1: y, y2: y, class: "base" }),
    scale.zero ? svg("line", { x1: left, x2: left + 28, y1: y, y2: y, class: "base" }) : null,
    scale.ticks.map((tick) => [svg("line", { x1: scale.at(tick), x2: scale.at(tick), y1: y, y2: y + 5, class: "base" }), label(scale.at(tick), y + 19, text(tick), { "text-anchor": "middle" })]),
    label(right, y + 38, name, { "text-anchor": "end", class: "name" }));
}

// Push labels apart along one line, keeping their order; `places` are wished centers.
function apart(places, least, low, high) {
  const order = places.map((_, index) => index).sort((a, b) => places[a] - places[b]), found = [...places];
  order.forEach((index, at) => { found[index] = Math.max(found[index], at ? found[order[at - 1]] + least : low); });
  for (let at = order.length - 1, limit = high; at >= 0; at -= 1) { found[order[at]] = Math.min(found[order[at]], limit); limit = found[order[at]] - least; }
  return found;
}
