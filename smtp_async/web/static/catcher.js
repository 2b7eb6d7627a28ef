// The mail catcher's page.

import { $, LongList, api, ask, attempt, begin, clock, copy, el, icon, live, moment, plural, size, toast } from "./page.js";

const TABS = ["html", "text", "source", "headers", "files", "envelope", "dialogue"];
const NAMES = { html: "HTML", text: "Text", source: "Source", headers: "Headers", files: "Files", envelope: "Envelope", dialogue: "Dialogue" };

const split = $("#split");
const detail = $("#detail");
let status = null;
let shown = null; // the message that is open
let tab = localStorage.getItem("tab") || "html";
let total = 0;
let faults = [];
const seen = new Set(JSON.parse(sessionStorage.getItem("seen") || "[]"));

// --- the list ---

const query = () => $("#search").value.trim();

const list = new LongList($("#list"), {
  rowHeight: 84,
  async load(offset, limit) {
    const answer = await api(`/api/messages?${new URLSearchParams({ q: query(), offset, limit })}`);
    total = answer.total;
    count(answer.found);
    return { found: answer.found, rows: answer.messages };
  },
  fill(element, row) {
    const name = nameOf(row.from);
    element.classList.toggle("unread", !seen.has(row.id));
    element.append(
      avatar(name),
      el("div", { class: "row-main" },
        el("div", { class: "row-line" }, el("span", { class: "who cut" }, name), el("time", { title: moment(row.at) }, clock(row.at))),
        el("div", { class: "subject cut" }, row.subject || "(no subject)"),
        el("div", { class: "preview" }, row.attachments ? icon("clip") : null, el("span", { class: "cut" }, row.preview || `to ${row.to}`)),
      ),
    );
  },
  opened: (row) => attempt(() => open(row.id)),
});

function count(found) {
  $("#count").textContent = query() ? `${found.toLocaleString()} of ${plural(total, "message")}` : plural(total, "message");
  $("#clear").disabled = found === 0;
}

const nameOf = (mailbox) => mailbox.replace(/\s*<[^<>]*>\s*$/, "").replace(/^"(.*)"$/, "$1") || mailbox || "(nobody)";

function avatar(name) {
  let sum = 0;
  for (const letter of name) sum = (sum * 31 + letter.codePointAt(0)) % 997;
  const first = [...name].find((letter) => /[\p{L}\p{N}]/u.test(letter)) || "?";
  return el("span", { class: `avatar t${sum % 8}`, "aria-hidden": "true" }, first.toUpperCase());
}

// --- one message ---

async function open(id) {
  shown = await api(`/api/messages/${id}`);
  seen.add(id);
  sessionStorage.setItem("seen", JSON.stringify([...seen].slice(-5000)));
  list.activeId = id;
  list.draw(true);
  split.classList.add("open");
  show();
}

function close() {
  split.classList.remove("open");
  list.element.focus();
}

function show() {
  const usable = TABS.filter((one) => (one !== "html" || shown.has_html) && (one !== "text" || shown.text !== null) && (one !== "files" || shown.files.length));
  const chosen = usable.includes(tab) ? tab : usable[0];
  const panel = el("div", { class: "panel", id: "panel", role: "tabpanel", tabindex: "0" });
  detail.replaceChildren(head(), tabs(usable, chosen), panel);
  select(chosen);
}

function head() {
  const button = (name, title, work) => el("button", { class: "icon-button", type: "button", title, "aria-label": title, onclick: work }, icon(name));
  const facts = el("dl", { class: "facts" });
  const add = (name, text) => text && facts.append(el("dt", {}, name), el("dd", {}, text));
  add("From", shown.from);
  add("To", shown.to);
  add("Cc", shown.cc);
  add("Reply to", shown.reply_to);
  const hidden = shown.recipients.filter((one) => !`${shown.to} ${shown.cc}`.toLowerCase().includes(one.toLowerCase()));
  add("Bcc", hidden.join(", "));
  add("Received", `${moment(shown.at)}, ${size(shown.size)}`);
  return el("div", { class: "detail-head" },
    el("div", { class: "detail-title" },
      el("button", { class: "icon-button back", type: "button", "aria-label": "Back to the list", onclick: close }, icon("back")),
      el("h1", {}, shown.subject || "(no subject)"),
      el("div", { class: "actions" },
        status?.relay ? button("send", "Relay", relay) : null,
        el("a", { class: "icon-button", href: `/api/messages/${shown.id}/raw?download`, title: "Save as .eml", "aria-label": "Save as .eml" }, icon("down")),
        button("trash", "Delete (Del)", remove))),
    el("div", { class: "people" }, avatar(nameOf(shown.from)), facts));
}

function tabs(usable, chosen) {
  const bar = el("div", { class: "tabs", role: "tablist", "aria-label": "Parts of the message" });
  for (const name of usable) {
    const number = { files: shown.files.length, headers: shown.headers.length }[name];
    bar.append(el("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": "panel", "aria-selected": String(name === chosen), tabindex: name === chosen ? "0" : "-1", onclick: () => { remember(name); select(name); } },
      NAMES[name], number ? el("small", {}, String(number)) : null));
  }
  bar.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const place = usable.findIndex((name) => $(`#tab-${name}`).getAttribute("aria-selected") === "true");
    const next = usable[(place + step + usable.length) % usable.length];
    remember(next);
    select(next);
    $(`#tab-${next}`).focus();
  });
  return bar;
}

function remember(name) {
  tab = name;
  localStorage.setItem("tab", name);
}

function select(name) {
  for (const button of detail.querySelectorAll('[role="tab"]')) {
    const chosen = button.id === `tab-${name}`;
    button.setAttribute("aria-selected", String(chosen));
    button.tabIndex = chosen ? 0 : -1;
  }
  const panel = $("#panel");
  panel.setAttribute("aria-labelledby", `tab-${name}`);
  panel.replaceChildren(...PANELS[name]());
}

const PANELS = {
  html() {
    const paper = el("div", { class: "paper" });
    const place = (external) => paper.replaceChildren(frame(external));
    const note = el("span", { class: "note" }, icon("shield"), "Images and styles from the network are blocked. ");
    note.append(el("button", { class: "button small", type: "button", id: "load-external", onclick: () => { place(true); note.replaceChildren(icon("shield"), "Loaded from the network."); } }, "Load them"));
    const width = (label, phone) => el("button", { type: "button", "aria-pressed": String(!phone), onclick: (event) => {
      paper.classList.toggle("phone", phone);
      for (const one of event.target.parentElement.children) one.setAttribute("aria-pressed", String(one === event.target));
    } }, label);
    place(false);
    return [
      el("div", { class: "panel-tools" }, el("div", { class: "choice", role: "group", "aria-label": "Width" }, width("Desktop", false), width("Phone", true)), shown.refers_outside ? note : el("span", { class: "muted" }, "Needs nothing from the network.")),
      paper,
    ];
  },
  text: () => [linked(shown.text, "text")],
  source() {
    const text = el("pre", { class: "text source" }, "Loading");
    attempt(async () => {
      const answer = await fetch(`/api/messages/${shown.id}/raw`);
      text.textContent = (await answer.text()).slice(0, 2_000_000);
    });
    return [text];
  },
  headers: () => [table(shown.headers)],
  files: () => [el("div", { class: "files" }, ...shown.files.map(fileLink))],
  envelope() {
    const { sender, parameters, recipients, tls, user, chunked } = shown.envelope;
    const rows = [["MAIL FROM", `<${sender}> ${parameters}`]];
    for (const one of recipients) rows.push(["RCPT TO", `<${one.address}> ${one.parameters}`]);
    rows.push(["Came by", chunked ? "BDAT" : "DATA"], ["TLS", tls ? "yes" : "no"], ["Logged in as", user ?? "nobody"], ["Message-ID", shown.message_id], ["Date", shown.date]);
    return [table(rows)];
  },
  dialogue: () => [el("ul", { class: "dialogue" }, ...shown.dialogue.map(line))],
};

function frame(external) {
  // The policy of the answer says the same again: no scripts, no origin, no network until it is wanted.
  return el("iframe", { sandbox: "allow-popups allow-popups-to-escape-sandbox", referrerpolicy: "no-referrer", title: "The message", src: `/api/messages/${shown.id}/html${external ? "?external=1" : ""}` });
}

function linked(text, kind) {
  const made = el("pre", { class: kind });
  let end = 0;
  for (const found of text.matchAll(/https?:\/\/[^\s<>"']+[^\s<>"'.,;:!?)\]]/g)) {
    made.append(text.slice(end, found.index), el("a", { href: found[0], target: "_blank", rel: "noopener noreferrer" }, found[0]));
    end = found.index + found[0].length;
  }
  made.append(text.slice(end));
  return made;
}

const table = (rows) => el("div", { class: "table" }, el("dl", {}, ...rows.filter(([, text]) => text).flatMap(([name, text]) => [el("dt", {}, name), el("dd", {}, text)])));

const fileLink = (file) => el("a", { href: `/api/messages/${shown.id}/files/${file.number}`, download: file.filename },
  icon("clip"), el("div", {}, el("div", { class: "cut" }, file.filename), el("small", {}, `${file.content_type}, ${size(file.size)}${file.inline ? ", in the HTML" : ""}`)));

function line({ who, text, at }) {
  const refused = who === "server" && /^[45]/.test(text);
  const breach = who === "note" && text.startsWith("against");
  return el("li", { class: `${who}${refused ? " refused" : ""}${breach ? " breach" : ""}` },
    el("time", {}, `${at.toFixed(3)} s`), el("b", {}, { client: ">", server: "<", note: "·" }[who]), el("span", {}, text));
}

// --- without a message ---

function empty() {
  const [host, port] = [status.smtp.slice(0, status.smtp.lastIndexOf(":")), status.smtp.slice(status.smtp.lastIndexOf(":") + 1)];
  const scheme = status.tls === "implicit" ? "smtps" : status.tls === "none" ? "smtp+plain" : "smtp";
  const code = (text) => el("pre", {}, text, el("button", { class: "icon-button", type: "button", "aria-label": "Copy", onclick: () => attempt(() => copy(text)) }, icon("copy")));
  const login = { none: "no login", offered: "any name and password", required: "a login is required, with any name and password" }[status.login];
  const tls = { none: "no TLS", offered: "STARTTLS is offered", required: "STARTTLS is required", implicit: "TLS from the first byte" }[status.tls];
  detail.replaceChildren(el("div", { class: "nothing" }, icon("mail"),
    el("h2", {}, total ? "Choose a message" : "Waiting for mail"),
    el("p", {}, `SMTP on ${status.smtp}: ${tls}, ${login}.`),
    total ? null : el("div", { class: "start" },
      el("p", {}, "From a shell:"),
      code(`smtp-async send --server ${scheme}://${status.smtp} \\\n    --from ann@example.com --to bob@example.org --subject Hello --text "Hi Bob"`),
      el("p", {}, "From Python:"),
      code(`async with SMTPClient.from_url("${scheme}://${status.smtp}") as client:\n    await client.send(message)`),
      el("p", {}, "Django:"),
      code(`EMAIL_HOST = "${host}"\nEMAIL_PORT = ${port}`))));
}

// --- deleting and relaying ---

async function remove() {
  if (!shown) return;
  const { id } = shown;
  await attempt(async () => {
    const place = list.active;
    await api(`/api/messages/${id}`, { method: "DELETE" });
    shown = null;
    list.activeId = null;
    await list.refresh();
    if (list.found && split.classList.contains("open") && innerWidth > 760) list.open(Math.min(place, list.found - 1));
    else {
      close();
      empty();
    }
  });
}

async function clear() {
  const words = query();
  if (!list.found || !(await ask(words ? `Delete the ${plural(list.found, "message")} found by “${words}”?` : `Delete all ${plural(list.found, "message")}?`, "Delete"))) return;
  await attempt(async () => {
    const { removed } = await api(`/api/messages?${new URLSearchParams({ q: words })}`, { method: "DELETE" });
    shown = null;
    toast(`${plural(removed, "message")} deleted`);
    await list.refresh({ reset: true });
    split.classList.remove("open");
    empty();
  });
}

function relay() {
  const form = $("#relay-form");
  form.elements.to.value = shown.recipients.join("\n");
  $("#relay-result").replaceChildren();
  $("#relay-dialog").showModal();
}

$("#relay-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const to = event.target.elements.to.value.split("\n").map((one) => one.trim()).filter(Boolean);
  attempt(async () => {
    const { recipients } = await api(`/api/messages/${shown.id}/relay`, { method: "POST", body: { to } });
    const kind = { accepted: "good", refused: "bad" };
    $("#relay-result").replaceChildren(...recipients.map((one) => el("li", {}, el("span", { class: `pill ${kind[one.outcome] || "warn"}` }, one.outcome), ` ${one.address} `, el("span", { class: "muted" }, one.reply))));
  });
});

// --- faults ---

const form = $("#fault-form");

function suggest() {
  const kind = form.elements.kind.value;
  const replies = kind === "refuse" || kind === "defer";
  $("#reply-field").hidden = !replies;
  $("#seconds-field").hidden = kind !== "delay";
  const [code, text] = status.stages[form.elements.stage.value][replies ? kind : "refuse"];
  form.elements.code.value = code;
  form.elements.text.value = text;
}

form.addEventListener("change", (event) => ["kind", "stage"].includes(event.target.name) && suggest());
form.addEventListener("submit", (event) => {
  event.preventDefault();
  const given = form.elements;
  const fault = { kind: given.kind.value, stage: given.stage.value, match: given.match.value.trim(), times: given.times.value ? Number(given.times.value) : null };
  if (fault.kind === "delay") fault.seconds = Number(given.seconds.value);
  else if (fault.kind !== "drop") Object.assign(fault, { code: Number(given.code.value), text: given.text.value.trim() });
  attempt(async () => {
    await api("/api/faults", { method: "POST", body: fault });
    toast("The fault is on");
  });
});

const inWords = (fault) => ({
  refuse: () => `Refuse at ${fault.stage}: ${fault.code} ${fault.text}`,
  defer: () => `Defer at ${fault.stage}: ${fault.code} ${fault.text}`,
  delay: () => `Delay at ${fault.stage}: ${fault.seconds} s`,
  drop: () => `Hang up at ${fault.stage}`,
})[fault.kind]();

const isOver = (fault) => fault.times !== null && fault.happened >= fault.times;

function showFaults(now) {
  faults = now;
  const on = faults.filter((fault) => !isOver(fault));
  $("#faults-count").textContent = on.length;
  $("#faults-count").hidden = !on.length;
  const notice = $("#fault-notice");
  notice.hidden = !on.length;
  notice.replaceChildren(icon("bolt"), el("span", {}, on.length === 1 ? inWords(on[0]) : `${on.length} faults are on`),
    el("button", { type: "button", onclick: () => attempt(() => api("/api/faults", { method: "DELETE" })) }, "Turn off"));
  $("#faults-list").replaceChildren(...(faults.length ? faults.map(faultRow) : [el("li", { class: "muted" }, "Everything goes right.")]));
}

function faultRow(fault) {
  const often = fault.times === null ? `happened ${plural(fault.happened, "time")}` : `happened ${fault.happened} of ${plural(fault.times, "time")}`;
  return el("li", {}, el("div", {}, inWords(fault), el("small", {}, [fault.match ? `only where it says “${fault.match}”, ` : "", often, isOver(fault) ? ", over" : ""].join(""))),
    el("button", { class: "icon-button", type: "button", "aria-label": "Remove the fault", onclick: () => attempt(() => api(`/api/faults/${fault.id}`, { method: "DELETE" })) }, icon("x")));
}

const openFaults = () => $("#faults-dialog").showModal();

// --- the beginning ---

begin(list, {
  f: openFaults,
  Delete: remove,
  "#": remove,
  Escape(event) {
    if (event.target.id === "search" && query()) {
      $("#search").value = "";
      list.refresh({ reset: true });
    }
    $("#search").blur();
    close();
  },
  ...Object.fromEntries(TABS.map((name, place) => [String(place + 1), () => shown && $(`#tab-${name}`)?.click()])),
});

$("#faults").addEventListener("click", openFaults);
$("#clear").addEventListener("click", clear);
let pause = 0;
$("#search").addEventListener("input", () => {
  clearTimeout(pause);
  pause = setTimeout(() => attempt(() => list.refresh({ reset: true })), 150);
});

await attempt(async () => {
  status = await api("/api/status");
  total = status.total;
  suggest();
  await list.refresh();
  empty();
});
live("/api/events", (news) => {
  const grown = news.total !== total;
  showFaults(news.faults);
  document.title = news.total ? `(${news.total}) Caught mail` : "Caught mail";
  attempt(async () => {
    await list.refresh();
    if (!shown && grown) empty();
  });
});
