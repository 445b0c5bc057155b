// a click sorts by a column, a second one the other way; numbers as numbers, empty cells last
for (const head of document.querySelectorAll("th")) head.onclick = () => {
  const table = head.closest("table"), at = head.cellIndex, up = head.ariaSort !== "ascending";
  for (const other of table.querySelectorAll("th")) other.ariaSort = null;
  head.ariaSort = up ? "ascending" : "descending";
  const text = row => row.cells[at].textContent.trim();
  const number = value => parseFloat(value.replace(/[,<+≤]/g, "").replace("−", "-"));
  const order = (a, b) => {
    const [x, y] = [text(a), text(b)];
    if (!x || !y) return !x - !y;
    const apart = head.classList.contains("n") ? number(x) - number(y) : x.localeCompare(y, "en", {numeric: true});
    return apart * (up ? 1 : -1);
  };
  table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
};
// a table shows the rows that have every word of its filter
for (const input of document.querySelectorAll("input")) input.oninput = () => {
  const words = input.value.toLowerCase().split(/\s+/);
  for (const row of input.closest(".table").querySelectorAll("tbody tr")) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every(word => text.includes(word));
  }
};
