// The critical-difference diagram: contestants by average rank, bars over those that are not told apart (Demšar 2006).
// Where it is narrow, the same with a row for each contestant and the bars upright.
function rankDiagram(width) {
  const { average, names: places, critical, groups } = data.ranks;
  const sorted = places.map((at, index) => ({ who: contestants[at], at, rank: average[index] })).sort((a, b) => a.rank - b.rank);
  const ranked = (at) => sorted.findIndex((each) => each.at === at);
  const bars = groups.filter((group) => group.length > 1).map((group) => group.map(ranked)).map((rows) => [Math.min(...rows), Math.max(...rows)]);
  const text = `${sorted.map(({ who, rank }) => `${who.name} ${fixed(rank, 2)}`).join(", ")}. Critical difference ${critical === null ? "unknown" : fixed(critical, 2)}. Not told apart: ${bars.map(([low, high]) => sorted.slice(low, high + 1).map(({ who }) => who.name).join(", ")).join("; ") || "none"}.`;
  return (width < 560 ? upright : flat)(sorted, bars, critical, width, text);
}

// The critical difference as a ruler, and the axis of ranks.
function rankAxis(scale, count, top, critical) {
  const end = scale.at(Math.min(1 + (critical ?? 0), scale.high)), start = scale.at(1), wide = scale.at(scale.high) - start;
  const every = Math.ceil((count * 24) / wide), ticks = Array.from({ length: count }, (_, at) => at + 1).filter((tick) => (tick - 1) % every === 0);
  return svg("g", {}, svg("path", { d: `M${start} 22H${end}M${start} 17V27M${end} 17V27`, class: "base strong" }),
    label(start, 12, critical === null ? "no critical difference" : `critical difference ${fixed(critical, 2)}`, { class: "name" }),
    svg("line", { x1: start, x2: scale.at(scale.high), y1: top, y2: top, class: "base strong" }),
    ticks.map((tick) => [svg("line", { x1: scale.at(tick), x2: scale.at(tick), y1: top - 6, y2: top, class: "base" }), label(scale.at(tick), top - 11, String(tick), { "text-anchor": "middle" })]));
}

function flat(sorted, bars, critical, width, text) {
  const count = sorted.length, half = Math.ceil(count / 2), side = 34 + Math.max(...sorted.map(({ who }) => textWidth(who.name))) + textWidth("0.00");
  const left = side, right = width - side, scale = linear(1, Math.max(count, 2), left, right);
  const top = 66, first = top + 28 + bars.length * 9, row = 24;
  return fill(frame("Average ranks with the critical difference", text, width, first + half * row), {}, [
    rankAxis(scale, count, top, critical),
    bars.map(([low, high], at) => svg("line", { x1: scale.at(sorted[low].rank) - 4, x2: scale.at(sorted[high].rank) + 4, y1: top + 14 + at * 9, y2: top + 14 + at * 9, class: "group" })),
    sorted.map(({ who, rank }, at) => {
      const near = at < half, y = first + (near ? at : count - 1 - at) * row, x = scale.at(rank), edge = near ? left - 6 : right + 6;
      return [svg("path", { d: `M${x} ${top}V${y}H${edge}`, class: "thread" }), mark(who, x, top),
        label(near ? edge - 4 : edge + 4, y + 4, near ? `${who.name}  ${fixed(rank, 2)}` : `${fixed(rank, 2)}  ${who.name}`, { "text-anchor": near ? "end" : "start", class: "halo" })];
    }),
  ]);
}

function upright(sorted, bars, critical, width, text) {
  const left = 14 + Math.max(...sorted.map(({ who }) => textWidth(who.name))), right = width - 16 - bars.length * 8;
  const scale = linear(1, Math.max(sorted.length, 2), left, right), top = 58, y = (at) => top + 20 + at * 24;
  return fill(frame("Average ranks with the critical difference", text, width, y(sorted.length)), {}, [
    rankAxis(scale, sorted.length, top, critical),
    sorted.map(({ who, rank }, at) => [svg("line", { x1: left, x2: right, y1: y(at), y2: y(at), class: "guide" }), label(left - 10, y(at) + 4, who.name, { "text-anchor": "end" }), mark(who, scale.at(rank), y(at))]),
    bars.map(([low, high], at) => svg("line", { x1: right + 12 + at * 8, x2: right + 12 + at * 8, y1: y(low), y2: y(high), class: "group" })),
  ]);
}
