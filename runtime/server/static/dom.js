// Building the page. Texts become text nodes and nothing else: no string is ever parsed as markup.

/** An element with properties (`class`, `data-*`, `aria-*` and others as attributes) and children. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children);
  return made;
}

/** The element of an id. */
export function byId(id) {
  return document.getElementById(id);
}

/** Text that only a screen reader reads. */
export function spoken(text) {
  return element("span", { class: "spoken" }, text);
}

/** The first characters of a text. */
export function shortened(text, length) {
  const characters = Array.from(text);
  return characters.length <= length ? text : characters.slice(0, length - 1).join("") + "…";
}

/** A share as a whole percentage. */
export function percent(share) {
  return `${Math.round(share * 100)} %`;
}

const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

/**
 * Makes a table a grid: one stop of the Tab key, in which arrow keys, Home and End move; `show(row, column)` is called for
 * the cell under the focus or the pointer.
 */
export function navigable(table, show) {
  const rows = [...table.tBodies[0].rows].map((row) => [...row.cells].filter((cell) => cell.tagName === "TD"));
  table.setAttribute("role", "grid");
  let current = null;
  const enter = (row, column) => {
    if (current) current.tabIndex = -1;
    current = rows[row][column];
    current.tabIndex = 0;
    show(row, column);
  };
  rows.forEach((cells, row) =>
    cells.forEach((cell, column) => {
      cell.tabIndex = -1;
      cell.addEventListener("focus", () => enter(row, column));
      cell.addEventListener("pointerenter", () => show(row, column));
    }),
  );
  if (rows.length && rows[0].length) rows[0][0].tabIndex = 0;
  current = rows[0]?.[0] ?? null;
  table.addEventListener("keydown", (event) => {
    const row = rows.findIndex((cells) => cells.includes(event.target));
    if (row < 0 || event.altKey || event.metaKey) return;
    const column = rows[row].indexOf(event.target);
    let next;
    if (event.key in STEPS && !event.ctrlKey) {
      next = [row + STEPS[event.key][0], column + STEPS[event.key][1]];
    } else if (event.key === "Home") {
      next = [event.ctrlKey ? 0 : row, 0];
    } else if (event.key === "End") {
      next = [event.ctrlKey ? rows.length - 1 : row, rows[row].length - 1];
    } else {
      return;
    }
    event.preventDefault();
    rows[next[0]]?.[next[1]]?.focus();
  });
}
