// Tables that sort by a click, Enter or Space on a heading. What has no value stays at the end, either way.
function sortable(table) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = heading.querySelector("button.sort");
    if (!button) return;
    button.addEventListener("click", () => {
      const now = heading.getAttribute("aria-sort");
      const way = now === null ? button.dataset.first : now === "ascending" ? "descending" : "ascending";
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", way);
      sortRows(table.tBodies[0], column, way === "ascending" ? 1 : -1);
    });
  });
}

function sortRows(body, column, way) {
  const keyed = [...body.rows].map((row) => ({ row, key: sortKey(row.cells[column]) }));
  keyed.sort((a, b) => {
    if (a.key === null || b.key === null) return (a.key === null) - (b.key === null);
    if (typeof a.key === "number" && typeof b.key === "number") return way * (a.key - b.key);
    return way * String(a.key).localeCompare(String(b.key), "en", { numeric: true });
  });
  body.append(...keyed.map(({ row }) => row));
}

function sortKey(cell) {
  if (!cell) return null;
  if (cell.dataset.key !== undefined) return cell.dataset.key === "" ? null : Number(cell.dataset.key);
  const text = cell.textContent.trim();
  return text === "" || text === "–" ? null : text;
}
