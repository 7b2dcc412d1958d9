// DOM helpers. Texts become text nodes: no string is ever parsed as markup.

/** Create an element with attributes and children. */
export function element(tag, attributes = {}, ...children) {
  const created = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    created.setAttribute(name, value === true ? "" : String(value));
  }
  created.append(...children);
  return created;
}

/** Get an element by its id. */
export function byId(id) {
  return document.getElementById(id);
}

/** Create a text for screen readers only. */
export function visuallyHidden(text) {
  return element("span", { class: "visually-hidden" }, text);
}

/** Shorten a text to a number of characters. */
export function shortened(text, length) {
  const characters = Array.from(text);
  return characters.length <= length ? text : characters.slice(0, length - 1).join("") + "…";
}

/** Format a fraction as a whole percentage. */
export function percent(fraction) {
  return `${Math.round(fraction * 100)} %`;
}

const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

/**
 * Make a table an ARIA grid: a single tab stop, in which the arrow keys, Home and End move. Calls `show(row, column)` for the
 * cell that has the focus or the pointer.
 */
export function makeGrid(table, show) {
  const rows = [...table.tBodies[0].rows].map((row) => [...row.cells].filter((cell) => cell.tagName === "TD"));
  table.setAttribute("role", "grid");
  let current = null;
  const focusCell = (row, column) => {
    if (current) current.tabIndex = -1;
    current = rows[row][column];
    current.tabIndex = 0;
    show(row, column);
  };
  rows.forEach((cells, row) =>
    cells.forEach((cell, column) => {
      cell.tabIndex = -1;
      cell.addEventListener("focus", () => focusCell(row, column));
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
