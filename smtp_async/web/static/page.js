// What both pages need: elements, requests, live news, a list of any length, dialogs and keys.

export const $ = (selector, root = document) => root.querySelector(selector);

/** Makes an element. Strings become text, never markup: mail is hostile. */
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

export function icon(name) {
  const made = document.createElementNS(SVG, "svg");
  made.setAttribute("class", "icon");
  made.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  made.append(use);
  return made;
}

export function svg(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

// --- requests ---

export async function api(path, { method = "GET", body } = {}) {
  const answer = await fetch(path, {
    method,
    headers: body === undefined ? {} : { "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const text = await answer.text();
  let found = {};
  try {
    found = JSON.parse(text);
  } catch {
    found = { error: text };
  }
  if (!answer.ok) throw new Error(found.error || `The server answered ${answer.status}.`);
  return found;
}

/** Calls `told` with the data of each event, for as long as the page is open. */
export function live(path, told) {
  const sign = $("#live");
  const show = (state, text) => {
    sign.dataset.state = state;
    $("span", sign).textContent = text;
  };
  const source = new EventSource(path);
  source.onopen = () => show("on", "Live");
  source.onerror = () => show("off", "Not connected");
  source.onmessage = (event) => told(JSON.parse(event.data));
}

// --- words ---

export function size(octets) {
  if (octets < 1024) return `${octets} B`;
  const power = Math.min(3, Math.floor(Math.log2(octets) / 10));
  return `${(octets / 1024 ** power).toFixed(octets < 10240 ? 1 : 0)} ${"KMG"[power - 1]}iB`;
}

export function span(seconds) {
  if (seconds < 1) return "now";
  for (const [length, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= 2 * length) return `${Math.round(seconds / length)} ${unit}`;
  }
  return `${Math.round(seconds)} s`;
}

/** A time for a list: the hour today, the day before. */
export function clock(seconds) {
  const when = new Date(seconds * 1000);
  const today = new Date().toDateString() === when.toDateString();
  return today
    ? when.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" })
    : when.toLocaleDateString([], { day: "numeric", month: "short" });
}

export const moment = (seconds) => new Date(seconds * 1000).toLocaleString();

export const plural = (number, word) => `${number.toLocaleString()} ${word}${number === 1 ? "" : "s"}`;

// --- a list of any length: only the rows in sight exist, and they are asked for in pages ---

const PAGE = 100;

export class LongList {
  /**
   * @param element the scrolling element.
   * @param options.rowHeight in pixels.
   * @param options.load (offset, limit) => Promise of {found, rows}.
   * @param options.fill (element, row, index): makes the content of a row.
   * @param options.opened (row): Enter, or a click.
   * @param options.toggled (row): Space, or a click on the mark; none if rows cannot be selected.
   * @param options.growsAbove () => whether new rows come in at the top.
   */
  constructor(element, { rowHeight, load, fill, opened, toggled = null, growsAbove = () => true }) {
    Object.assign(this, { element, rowHeight, load, fill, opened, toggled, growsAbove });
    this.found = 0;
    this.pages = new Map();
    this.asked = new Set();
    this.drawn = new Map();
    this.active = -1;
    this.activeId = null;
    this.turn = 0;
    this.space = el("div", { class: "list-space" });
    element.append(this.space);
    element.addEventListener("scroll", () => this.draw(), { passive: true });
    element.addEventListener("keydown", (event) => this.key(event));
    element.addEventListener("focus", () => this.active < 0 && this.move(0));
    this.space.addEventListener("click", (event) => this.click(event));
    new ResizeObserver(() => this.draw()).observe(element);
  }

  row(index) {
    return this.pages.get(Math.floor(index / PAGE))?.[index % PAGE];
  }

  /** Asks for the rows in sight again, and keeps the old ones until the new ones are here. */
  async refresh({ reset = false } = {}) {
    const turn = ++this.turn;
    if (reset) this.element.scrollTop = 0;
    const first = Math.floor(this.element.scrollTop / this.rowHeight / PAGE);
    const { found, rows } = await this.load(first * PAGE, PAGE);
    if (turn !== this.turn) return;
    const more = found - this.found;
    // What is read stays where it is when something comes in above it.
    const shift = !reset && more > 0 && this.element.scrollTop > 0 && this.growsAbove() ? more : 0;
    this.found = found;
    this.pages = new Map([[first, rows]]);
    this.asked = new Set();
    this.space.style.height = `${found * this.rowHeight}px`;
    if (shift) this.element.scrollTop += shift * this.rowHeight;
    const place = rows.findIndex((row) => row.id === this.activeId);
    if (place >= 0) this.active = first * PAGE + place;
    else if (this.active >= 0) this.active = Math.min(this.active + shift, found - 1);
    this.draw(true);
  }

  draw(anew = false) {
    const { scrollTop, clientHeight } = this.element;
    const from = Math.max(0, Math.floor(scrollTop / this.rowHeight) - 4);
    const to = Math.min(this.found, Math.ceil((scrollTop + clientHeight) / this.rowHeight) + 4);
    for (const [index, element] of this.drawn) {
      if (index < from || index >= to) {
        element.remove();
        this.drawn.delete(index);
      }
    }
    for (let index = from; index < to; index++) this.drawRow(index, anew);
    this.mark();
    for (let page = Math.floor(from / PAGE); page * PAGE < to; page++) this.ask(page);
  }

  drawRow(index, anew) {
    const row = this.row(index);
    let element = this.drawn.get(index);
    if (element && !anew && (element.dataset.id || "") === (row?.id || "")) return;
    if (!element) {
      element = el("div", { class: "row", role: "option", id: `row-${index}` });
      element.style.height = `${this.rowHeight}px`;
      element.style.transform = `translateY(${index * this.rowHeight}px)`;
      this.drawn.set(index, element);
      this.space.append(element);
    }
    element.replaceChildren();
    element.dataset.index = index;
    element.dataset.id = row?.id || "";
    element.setAttribute("aria-posinset", index + 1);
    element.setAttribute("aria-setsize", this.found);
    if (row) this.fill(element, row, index);
    else element.append(el("div", { class: "row-wait" }));
  }

  async ask(page) {
    if (this.pages.has(page) || this.asked.has(page)) return;
    this.asked.add(page);
    const turn = this.turn;
    const { rows } = await this.load(page * PAGE, PAGE);
    if (turn !== this.turn) return;
    this.pages.set(page, rows);
    this.draw();
  }

  mark() {
    for (const [index, element] of this.drawn) element.classList.toggle("active", index === this.active);
    if (this.drawn.has(this.active)) this.element.setAttribute("aria-activedescendant", `row-${this.active}`);
    else this.element.removeAttribute("aria-activedescendant");
  }

  move(index) {
    if (!this.found) return;
    this.active = Math.max(0, Math.min(index, this.found - 1));
    this.activeId = this.row(this.active)?.id ?? null;
    const top = this.active * this.rowHeight;
    const { scrollTop, clientHeight } = this.element;
    if (top < scrollTop) this.element.scrollTop = top;
    else if (top + this.rowHeight > scrollTop + clientHeight) this.element.scrollTop = top + this.rowHeight - clientHeight;
    this.draw();
  }

  open(index) {
    this.move(index);
    const row = this.row(this.active);
    if (row) this.opened(row);
  }

  click(event) {
    const element = event.target.closest(".row");
    if (!element) return;
    const index = Number(element.dataset.index);
    if (this.toggled && event.target.closest(".row-mark")) {
      this.move(index);
      if (this.row(index)) this.toggled(this.row(index));
    } else this.open(index);
  }

  key(event) {
    const step = Math.max(1, Math.floor(this.element.clientHeight / this.rowHeight) - 1);
    const targets = {
      ArrowDown: this.active + 1, ArrowUp: this.active - 1, PageDown: this.active + step,
      PageUp: this.active - step, Home: 0, End: this.found - 1,
    };
    if (event.key in targets) this.move(targets[event.key]);
    else if (event.key === "Enter") this.open(this.active);
    else if (event.key === " " && this.toggled && this.row(this.active)) this.toggled(this.row(this.active));
    else return;
    event.preventDefault();
  }
}

// --- dialogs, notes, keys, light and dark ---

export function toast(text, kind = "") {
  const made = el("div", { class: `toast ${kind}` }, text);
  $("#toasts").append(made);
  setTimeout(() => made.remove(), kind === "bad" ? 8000 : 3500);
}

/** Does something that may fail, and says so if it does. */
export async function attempt(work) {
  try {
    return await work();
  } catch (error) {
    toast(error.message, "bad");
    return null;
  }
}

export function ask(text, yes) {
  const dialog = $("#question");
  $("#question-text").textContent = text;
  $("#question-yes").textContent = yes;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((answered) => {
    dialog.addEventListener("close", () => answered(dialog.returnValue === "yes"), { once: true });
  });
}

export async function copy(text) {
  await navigator.clipboard.writeText(text);
  toast("Copied");
}

const THEMES = { auto: "auto", light: "sun", dark: "moon" };

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  localStorage.setItem("theme", name);
  $("#theme use").setAttribute("href", `#i-${THEMES[name]}`);
  $("#theme").title = `Colours: ${name}`;
}

/** Sets up what both pages have; `keys` are those of the page: key => what it does. */
export function begin(list, keys) {
  const stored = localStorage.getItem("theme");
  setTheme(stored in THEMES ? stored : "auto");
  $("#theme").addEventListener("click", () => {
    const names = Object.keys(THEMES);
    setTheme(names[(names.indexOf(document.documentElement.dataset.theme) + 1) % names.length]);
  });
  $("#keys").addEventListener("click", () => $("#keys-dialog").showModal());
  for (const button of document.querySelectorAll("[data-close]")) {
    button.addEventListener("click", () => button.closest("dialog").close());
  }
  const known = {
    j: () => list.open(list.active + 1),
    k: () => list.open(list.active - 1),
    "/": () => $("#search").select(),
    "?": () => $("#keys-dialog").showModal(),
    ...keys,
  };
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, textarea, select, dialog");
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (typing && !(event.key === "Escape" && event.target.id === "search")) return;
    if (!(event.key in known)) return;
    event.preventDefault();
    known[event.key](event);
  });
}
