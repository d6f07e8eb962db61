// Quality against one cost: marks with whiskers, the Pareto line, and names that cover nothing.
function scatter(board, key, width) {
  const [, title, unit] = data.costs.find(([name]) => name === key);
  const points = board.points.filter((point) => point[4][key]).map(([at, value, low, high, costs]) => ({ who: contestants[at], at, value, low: low ?? value, high: high ?? value, cost: costs[key][0], text: costs[key][1], from: costs[key][2] ?? costs[key][0], to: costs[key][3] ?? costs[key][0] }));
  if (!points.length) return html("p", { class: "note" }, `No contestant of this board has a measured ${title}.`);
  const height = Math.round(Math.min(460, Math.max(340, width * 0.5)));
  const lowest = Math.min(...points.map((p) => p.low)), highest = Math.max(...points.map((p) => p.high)), room = (highest - lowest) * 0.06 || 1;
  const y = linear(lowest - room, highest + room, height - 50, 24);
  const left = 14 + Math.max(...y.ticks.map((tick) => textWidth(fixed(tick, y.digits)))), right = width - 10;
  const all = points.flatMap((p) => [p.cost, p.from, p.to]);
  const most = Math.max(...all), least = Math.min(...all, 0);
  const x = spans(all) ? logarithmic(all, left, right) : linear(least, most + (most - least || 1) * 0.06, left, right, Math.max(2, Math.floor(width / 130)));
  for (const p of points) Object.assign(p, { x: x.at(p.cost), y: y.at(p.value) });
  const line = board.fronts[key].map((at) => points.find((p) => p.at === at)).filter(Boolean);
  const steps = line.map((p, place) => (place ? `H${p.x.toFixed(1)}V${p.y.toFixed(1)}` : `M${p.x.toFixed(1)} ${p.y.toFixed(1)}`)).join("");
  const text = `${board.title}. ${points.map((p) => `${p.who.name}: ${score(p.value)} (${score(p.low)} to ${score(p.high)}) at ${p.text}`).join("; ")}. On the Pareto line: ${line.map((p) => p.who.name).join(", ")}.`;
  return fill(frame(`${data.metric.title} against ${title}`, text, width, height), {}, [
    yAxis(y, left, right, `${data.metric.title}${data.metric.unit ? `, ${data.metric.unit}` : ""}`),
    xAxis(x, height - 50, left, right, (tick) => prefixed(tick, unit), `${title}${x.log ? ", logarithmic" : ""}`),
    svg("path", { d: steps, class: "front" }),
    points.map((p) => svg("path", { d: `M${p.x} ${y.at(p.low)}V${y.at(p.high)}M${x.at(p.from)} ${p.y}H${x.at(p.to)}`, class: `whiskers c${p.who.color}` })),
    points.map((p) => fill(mark(p.who, p.x, p.y), {}, [svg("title", {}, `${p.who.name}: ${score(p.value)} at ${p.text}`)])),
    names(points, { left, right, top: 18, bottom: height - 52 }, line, (p) => [y.at(p.high), y.at(p.low)]),
  ]);
}

// A place for each name: beside its mark if free, else farther away with a thread.
function names(points, area, line, whisker) {
  const taken = points.map((p) => [p.x - 8, p.y - 8, p.x + 8, p.y + 8]);
  const thin = points.map((p) => { const [top, bottom] = whisker(p); return [p.x - 1, top, p.x + 1, bottom]; });
  line.slice(1).forEach((p, at) => { const before = line[at]; thin.push([before.x, before.y - 1, p.x, before.y + 1], [p.x - 1, Math.min(p.y, before.y), p.x + 1, Math.max(p.y, before.y)]); });
  const hits = (box, boxes) => boxes.filter((other) => box[0] < other[2] && box[2] > other[0] && box[1] < other[3] && box[3] > other[1]).length;
  const made = [];
  for (const p of [...points].sort((a, b) => b.y - a.y)) {
    const wide = textWidth(p.who.name) + 2, high = 15;
    let best = null;
    for (const far of [0, 12, 24, 38, 54, 72, 92, 115, 140]) {
      for (let turn = 0; turn < 16; turn += 1) {
        const angle = (turn * Math.PI) / 8, dx = Math.cos(angle), dy = Math.sin(angle);
        const cx = p.x + dx * (11 + far + wide / 2), cy = p.y + dy * (16 + far);
        const box = [cx - wide / 2, cy - high / 2, cx + wide / 2, cy + high / 2];
        if (box[0] < area.left || box[2] > area.right || box[1] < area.top || box[3] > area.bottom) continue;
        const cost = 1000 * hits(box, taken) + 14 * hits(box, thin) + far + (turn % 4 ? 2 : 0) + (turn === 0 ? -2 : 0);
        if (!best || cost < best.cost) best = { cost, box, cx, cy, far };
      }
    }
    if (!best) best = { box: [p.x, p.y, p.x, p.y], cx: p.x, cy: p.y - 14, far: 0 };
    taken.push(best.box);
    if (best.far > 12) made.push(svg("line", { x1: p.x, y1: p.y, x2: Math.min(Math.max(p.x, best.box[0]), best.box[2]), y2: best.cy < p.y ? best.box[3] : best.box[1], class: "thread" }));
    made.push(label(best.cx, best.cy + 4, p.who.name, { "text-anchor": "middle", class: "halo" }));
  }
  return made;
}
