"use strict";
// What all pages use: elements, sortable tables, requests.
const SVG = "http://www.w3.org/2000/svg";

function make(name, attributes, ...inside) {
  const element = name.startsWith("svg:") ? document.createElementNS(SVG, name.slice(4)) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) element.setAttribute(key, value);
  element.append(...inside);
  return element;
}

function sortable(table) {
  const head = table.tHead.rows[0];
  const value = (row, place) => {
    const text = row.cells[place].textContent.trim();
    const number = parseFloat(text.replace(/^[<+]/, ""));
    return Number.isNaN(number) ? text : number;
  };
  const compare = (a, b) => typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1;
  [...head.cells].forEach((cell, place) => {
    cell.tabIndex = 0;
    const sort = () => {
      const down = cell.getAttribute("aria-sort") !== "descending";
      for (const other of head.cells) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => compare(value(a, place), value(b, place)) * (down ? -1 : 1));
      table.tBodies[0].append(...rows);
    };
    cell.addEventListener("click", sort);
    cell.addEventListener("keydown", event => { if (event.key === "Enter") sort(); });
  });
}

// The JSON of an address; an error shows its message in the page's status line.
async function request(address, body) {
  const options = body === undefined ? {} :
    {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body)};
  let answer, value;
  try {
    answer = await fetch(address, options);
    value = await answer.json();
  } catch (error) {
    showStatus("The server does not answer. Is irdistill view still running?");
    throw error;
  }
  if (!answer.ok) {
    showStatus(value.error);
    throw new Error(value.error);
  }
  showStatus("");
  return value;
}

function showStatus(text) {
  const line = document.getElementById("status");
  if (line && line.textContent !== text) line.textContent = text;
}

// Calls now and then every few seconds while the page is visible; not before the last call has ended.
function every(seconds, call) {
  const turn = async () => {
    try { if (!document.hidden) await call(); } catch { /* shown in the status line */ }
    setTimeout(turn, seconds * 1000);
  };
  turn();
}

function pageData() {
  return JSON.parse(document.getElementById("data").textContent);
}
