// Sortable columns. Without script the tables read the same, in the order of the suite.
for (const table of document.querySelectorAll("figure.table table")) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  table.tHead.rows[0].querySelectorAll("th").forEach((head, index) => {
    head.setAttribute("tabindex", "0");
    head.setAttribute("aria-sort", "none");
    head.classList.add("sortable");
    head.title = "Sort by this column";
    const sort = () => {
      const next = { none: "ascending", ascending: "descending", descending: "none" }[head.getAttribute("aria-sort")];
      head.parentNode.querySelectorAll("th").forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", next);
      body.append(...(next === "none" ? original : sorted(original, index, next === "descending" ? -1 : 1)));
    };
    head.addEventListener("click", sort);
    head.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        sort();
      }
    });
  });
}
function sorted(rows, index, sign) {
  const numeric = rows.some((row) => row.cells[index].dataset.sort && !isNaN(row.cells[index].dataset.sort));
  const key = (row) => row.cells[index].dataset.sort;
  // Cells without a value stay last in both directions: missing is neither good nor bad.
  const empty = (row) => key(row) === undefined || (numeric && isNaN(key(row)));
  const compare = (a, b) => (numeric ? key(a) - key(b) : key(a).localeCompare(key(b)));
  return [...rows].sort((a, b) => empty(a) - empty(b) || (empty(a) ? 0 : sign * compare(a, b)));
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => (part.open = true)));
