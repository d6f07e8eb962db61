// Learning curves, and sweeps over one setting.
const known = (run, x, y) => run[x].map((at, place) => [at, run[y][place]]).filter(([at, value]) => at !== null && value !== null);

function curves(board, x, y, shown, width) {
  const lines = board.curves.filter(([at]) => shown.has(at)).map(([at, runs]) => ({ who: contestants[at], runs: runs.map((run) => known(run, x, y)).filter((run) => run.length) })).filter(({ runs }) => runs.length);
  if (!lines.length) return html("p", { class: "note" }, "Nothing to draw: no contestant that is shown has this curve on this board.");
  const all = lines.flatMap(({ runs }) => runs.flat()), losses = all.map(([, value]) => value);
  const height = Math.round(Math.min(420, Math.max(300, width * 0.45)));
  const high = Math.max(...losses), low = Math.min(...losses, high * 0.6);
  const up = linear(Math.max(0, low - (high - low) * 0.05), high * 1.02, height - 50, 24);
  const left = 14 + Math.max(...up.ticks.map((tick) => textWidth(fixed(tick, up.digits))));
  const right = width - 46 - Math.max(...lines.map(({ who }) => textWidth(who.name)));
  const across = linear(0, Math.max(...all.map(([at]) => at)), left, right, Math.max(2, Math.floor(width / 150)));
  for (const line of lines) {
    line.mean = mean(line.runs);
    line.end = line.mean[line.mean.length - 1];
  }
  const path = (run) => run.map(([at, value], place) => `${place ? "L" : "M"}${across.at(at).toFixed(1)} ${up.at(value).toFixed(1)}`).join("");
  const places = apart(lines.map(({ end }) => up.at(end[1])), 15, 24, height - 52);
  const name = `${y === 2 ? "training loss" : "validation loss"}`, by = x ? "seconds" : "steps";
  const text = `${board.title}. At the end: ${lines.map(({ who, end }) => `${who.name} ${fixed(end[1], 3)}`).join(", ")}.`;
  return fill(frame(`${name} by ${by}`, text, width, height), {}, [
    yAxis(up, left, right, name), xAxis(across, height - 50, left, right, (tick) => prefixed(tick, x ? "s" : ""), by),
    lines.map(({ who, runs }) => runs.map((run) => svg("path", { d: path(run), class: `${who.line} thin` }))),
    lines.map(({ who, mean: run }) => svg("path", { d: path(run), class: who.line })),
    lines.map(({ who, end }, at) => [
      svg("path", { d: `M${across.at(end[0])} ${up.at(end[1])}L${right + 20} ${places[at]}`, class: `thread c${who.color}` }),
      mark(who, right + 28, places[at]), label(right + 38, places[at] + 4, who.name, { class: "halo" }),
    ]),
  ]);
}

// The mean of runs over the stretch that all of them have, each drawn out between its points.
function mean(runs) {
  const end = Math.min(...runs.map((run) => run[run.length - 1][0])), start = Math.max(...runs.map((run) => run[0][0]));
  const within = runs[0].map(([at]) => at).filter((at) => at >= start && at < end);
  return [...within, Math.max(start, end)].map((at) => [at, runs.reduce((sum, run) => sum + between(run, at), 0) / runs.length]);
}

function between(run, at) {
  const next = run.findIndex(([x]) => x >= at);
  if (next <= 0) return run[next === 0 ? 0 : run.length - 1][1];
  const [x0, y0] = run[next - 1], [x1, y1] = run[next];
  return y0 + ((at - x0) / (x1 - x0)) * (y1 - y0);
}

// The scores of boards that differ only by how many rows were trained on.
function bySize(board, width) {
  const boards = data.boards.filter(({ group }) => group === board.group).sort((a, b) => a.rows - b.rows);
  const lines = contestants.map((who, at) => ({ who, points: boards.flatMap(({ rows, points }) => points.filter(([place]) => place === at).map(([, value, low, high]) => ({ rows, value, low: low ?? value, high: high ?? value }))) })).filter(({ points }) => points.length > 1);
  if (!lines.length) return html("p", { class: "note" }, "No contestant of this board has scores at several numbers of rows.");
  const all = lines.flatMap(({ points }) => points), height = Math.round(Math.min(460, Math.max(340, width * 0.48)));
  const low = Math.min(...all.map((p) => p.low)), high = Math.max(...all.map((p) => p.high)), room = (high - low) * 0.04 || 1;
  const up = linear(low - room, high + room, height - 50, 24);
  const left = 14 + Math.max(...up.ticks.map((tick) => textWidth(fixed(tick, up.digits)))), right = width - 46 - Math.max(...lines.map(({ who }) => textWidth(who.name)));
  const across = { ...logarithmic(all.map((p) => Math.max(1, p.rows)), left, right), ticks: [...new Set(all.map((p) => p.rows))] };
  for (const { points } of lines) for (const p of points) Object.assign(p, { x: across.at(Math.max(1, p.rows)), y: up.at(p.value) });
  const places = apart(lines.map(({ points }) => points[points.length - 1].y), 15, 24, height - 52);
  const text = `${board.title}. ${lines.map(({ who, points }) => `${who.name}: ${points.map((p) => `${score(p.value)} with ${p.rows}`).join(", ")}`).join("; ")}.`;
  return fill(frame(`${data.metric.title} by train rows`, text, width, height), {}, [
    yAxis(up, left, right, `${data.metric.title}${data.metric.unit ? `, ${data.metric.unit}` : ""}`),
    xAxis(across, height - 50, left, right, (tick) => fixed(tick, 0), "train rows, logarithmic"),
    lines.map(({ who, points }, at) => {
      const end = points[points.length - 1];
      return [svg("path", { d: points.map((p, place) => `${place ? "L" : "M"}${p.x} ${p.y}`).join(""), class: who.line }),
        points.map((p) => [svg("path", { d: `M${p.x} ${up.at(p.low)}V${up.at(p.high)}`, class: `whiskers c${who.color}` }), mark(who, p.x, p.y)]),
        svg("path", { d: `M${end.x + 7} ${end.y}L${right + 20} ${places[at]}`, class: "thread" }), mark(who, right + 28, places[at]), label(right + 38, places[at] + 4, who.name, { class: "halo" })];
    }),
  ]);
}

function sweep(found, width) {
  const height = 300, who = contestants[found.contestant], have = found.scores.filter(Boolean);
  if (!have.length) return html("p", { class: "note" }, "No point of this sweep has a score.");
  const low = Math.min(...have.map((each) => each[1] ?? each[0])), high = Math.max(...have.map((each) => each[2] ?? each[0])), room = (high - low) * 0.1 || 1;
  const up = linear(low - room, high + room, height - 50, 24);
  const left = 14 + Math.max(...up.ticks.map((tick) => textWidth(fixed(tick, up.digits)))), right = width - 10;
  const at = (place) => left + ((place + 0.5) / found.values.length) * (right - left);
  const points = found.scores.map((each, place) => each && { x: at(place), y: up.at(each[0]), bottom: up.at(each[1] ?? each[0]), top: up.at(each[2] ?? each[0]), value: each[0] });
  const line = points.filter(Boolean).map((p, place) => `${place ? "L" : "M"}${p.x} ${p.y}`).join("");
  const text = found.values.map((value, place) => `${found.axis} ${value}: ${found.scores[place] ? score(found.scores[place][0]) : "no score"}`).join("; ");
  const ticks = { ticks: found.values.map((_, place) => place), at };
  return fill(frame(`${found.name} by ${found.axis}`, text, width, height), {}, [
    yAxis(up, left, right, `${data.metric.title}${data.metric.unit ? `, ${data.metric.unit}` : ""}`),
    xAxis(ticks, height - 50, left, right, (place) => found.values[place], found.axis),
    svg("path", { d: line, class: who.line }),
    points.filter(Boolean).map((p) => [svg("path", { d: `M${p.x} ${p.bottom}V${p.top}`, class: `whiskers c${who.color}` }), mark(who, p.x, p.y), label(p.x, Math.min(p.top - 6, p.y - 11), score(p.value), { "text-anchor": "middle", class: "halo" })]),
    points.map((p, place) => (p ? null : label(at(place), height - 62, "no score", { "text-anchor": "middle", class: "name" }))),
  ]);
}
