// One board at a time, everywhere on the page.
let board = 0;
const shown = new Set(contestants.map((_, at) => at));
const value = (id) => $(id).value;

const redraws = [
  data.costs.length ? plot($("plot-quality"), (width) => scatter(data.boards[board], value("cost"), width)) : () => {},
  plot($("plot-curves"), (width) => curves(data.boards[board], Number(value("curve-x")), Number(value("curve-y")), shown, width)),
];
redraws.push(plot($("plot-sizes"), (width) => bySize(data.boards[board], width)));
if (data.ranks) plot($("plot-ranks"), rankDiagram);
for (const place of document.querySelectorAll("[data-sweep]")) plot(place, (width) => sweep(data.sweeps[place.dataset.sweep], width));
const items = $("explorer") ? explorer() : () => {};

function legend() {
  if (!$("curve-legend")) return;
  for (const old of $("curve-legend").querySelectorAll("label")) old.remove();
  $("curve-legend").append(...data.boards[board].curves.map(([at]) => {
    const box = html("input", { type: "checkbox", checked: shown.has(at) ? "" : null });
    box.addEventListener("change", () => { shown[box.checked ? "add" : "delete"](at); redraws[1](); });
    return html("label", {}, box, whoIs(contestants[at]));
  }));
}

function choose(at) {
  board = at;
  for (const block of document.querySelectorAll("[data-board]")) block.hidden = Number(block.dataset.board) !== at;
  for (const place of document.querySelectorAll("[data-of]")) place.textContent = data.boards[at].title;
  legend();
  for (const redraw of redraws) redraw();
  items(at);
}

for (const hidden of document.querySelectorAll(".controls, .pick, .pager, .legend")) hidden.hidden = false;
for (const table of document.querySelectorAll("table.sortable")) sortable(table);
$("board")?.addEventListener("change", () => choose(Number(value("board"))));
for (const id of ["cost", "curve-x", "curve-y"]) $(id)?.addEventListener("change", () => redraws.forEach((redraw) => redraw()));
// Paper shows what is folded away, long lists apart.
let opened = [];
addEventListener("beforeprint", () => { opened = [...document.querySelectorAll("details.brief:not([open])")]; for (const each of opened) each.open = true; });
addEventListener("afterprint", () => { for (const each of opened) each.open = false; });
choose(0);
