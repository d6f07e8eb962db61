// Items one by one: search, who is right, what flipped between two contestants; ten to a page.
const PAGE = 10;

function explorer() {
  const { texts, rows, judges } = data.items, sign = data.metric.higher ? 1 : -1;
  const items = rows.map(([board, item, where, input, reference, outputs, scores]) => ({ board, item, where: texts[where], input: texts[input], reference: texts[reference], outputs: contestants.map((_, at) => texts[outputs[at] ?? -1]), scores: contestants.map((_, at) => scores[at] ?? null) }));
  for (const each of items) each.all = [each.input, each.reference, ...each.outputs.filter((text) => text !== undefined)].join("\n").toLowerCase();
  let board = 0, page = 0, here = [], took = [];

  const right = (item, at) => (item.scores[at] === null || judges[item.board][1] === null ? null : sign * (item.scores[at] - judges[item.board][1]) > 0);
  const wanted = () => new Map([...$("rights").querySelectorAll("select")].filter((each) => each.value).map((each) => [Number(each.dataset.at), each.value === "right"]));

  function found() {
    const text = $("search").value.trim().toLowerCase(), way = $("flip-way").value, a = Number($("flip-a").value), b = Number($("flip-b").value), want = wanted();
    return here.filter((item) => {
      if (text && !item.all.includes(text)) return false;
      for (const [at, is] of want) if (right(item, at) !== is) return false;
      if (!way) return true;
      const before = right(item, a), after = right(item, b);
      if (before === null || after === null || before === after) return false;
      return way === "both" || (way === "up") === after;
    });
  }

  function verdict(item, at) {
    const value = item.scores[at], is = right(item, at);
    if (is === null) return null;
    const graded = judges[item.board][0], seeds = !graded && value > 0 && value < 100 ? ` in ${Math.round(is ? value : 100 - value)} % of seeds` : "";
    const text = graded ? `score ${score(value)}` : `${is ? "right" : "wrong"}${seeds}`;
    if (graded) return html("span", { class: "judged" }, text);
    return html("span", { class: `judged ${is ? "right" : "wrong"}` }, html("span", { "aria-hidden": "true" }, is ? "✓ " : "✗ "), text);
  }

  function card(item) {
    const long = Math.max(...item.outputs.map((text) => text?.length ?? 0)) > 40;
    return html("li", {}, html("article", { "aria-label": `Item ${item.item}` },
      html("p", { class: "where" }, `item ${item.item}${item.where ? ` · ${item.where}` : ""}`),
      html("p", { class: "text" }, item.input),
      html("p", { class: "reference" }, html("span", { class: "role" }, "Reference "), html("span", { class: "text" }, item.reference)),
      html("dl", { class: long ? "outputs long" : "outputs" }, took.filter((at) => item.outputs[at] !== undefined).map((at) => html("div", {}, html("dt", {}, whoIs(contestants[at])), html("dd", {}, html("span", { class: "text" }, item.outputs[at]), verdict(item, at)))))));
  }

  function show() {
    const all = found(), pages = Math.max(1, Math.ceil(all.length / PAGE));
    page = Math.min(Math.max(page, 0), pages - 1);
    $("found").start = page * PAGE + 1;
    $("found").replaceChildren(...all.slice(page * PAGE, (page + 1) * PAGE).map(card));
    $("count").textContent = `${fixed(all.length, 0)} of ${fixed(here.length, 0)} items`;
    $("page").textContent = `Page ${page + 1} of ${pages}`;
    $("previous").disabled = page === 0;
    $("next").disabled = page >= pages - 1;
  }

  function start(at) {
    board = at; page = 0;
    here = items.filter((item) => item.board === board);
    took = contestants.map((_, place) => place).filter((place) => here.some((item) => item.outputs[place] !== undefined));
    const graded = judges[board]?.[0], options = (attributes) => took.map((place) => html("option", { value: place, ...attributes }, contestants[place].name));
    $("flip-a").replaceChildren(...options({}));
    $("flip-b").replaceChildren(...options({}));
    const from = took.includes(data.boards[board].reference) ? data.boards[board].reference : took[0];
    $("flip-a").value = from;
    $("flip-b").value = data.boards[board].points.map(([place]) => place).find((place) => place !== from) ?? from;
    for (const option of [...$("flip-a").options, ...$("flip-b").options]) option.defaultSelected = option.selected; // what Clear returns to
    $("rights").replaceChildren(...took.map((place) => html("label", {}, whoIs(contestants[place]), html("select", { "data-at": place }, html("option", { value: "" }, "any"), html("option", { value: "right" }, graded ? "better half" : "right"), html("option", { value: "wrong" }, graded ? "worse half" : "wrong")))));
    show();
  }

  for (const button of document.querySelectorAll("button.flips")) button.addEventListener("click", () => {
    $("explorer").reset();
    $("flip-a").value = data.boards[board].reference;
    $("flip-b").value = contestants.findIndex(({ name }) => name === button.dataset.to);
    $("flip-way").value = "both";
    $("items").scrollIntoView();
    $("flip-way").focus({ preventScroll: true });
  });
  const turn = (by) => { page += by; show(); $("items").scrollIntoView(); };
  const again = () => { page = 0; show(); };
  $("search").addEventListener("input", again);
  $("explorer").addEventListener("change", again);
  $("explorer").addEventListener("reset", () => setTimeout(again));
  $("explorer").addEventListener("submit", (event) => event.preventDefault());
  $("previous").addEventListener("click", () => turn(-1));
  $("next").addEventListener("click", () => turn(1));
  return start;
}
