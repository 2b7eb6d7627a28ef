// The queue console's page.

import { $, LongList, api, ask, attempt, begin, clock, el, icon, live, moment, plural, size, span, svg, toast } from "./page.js";

const STATES = ["queued", "sending", "held", "failed", "sent"];
const LOOKS = { queued: "accent", sending: "accent", held: "warn", failed: "bad", sent: "good", gone: "" };
const EVENTS = { queued: "accent", recovered: "warn", started: "", sent: "good", deferred: "warn", failed: "bad", paused: "bad", resumed: "good" };
const ACTIONS = { hold: ["pause", "Hold"], release: ["play", "Release"], requeue: ["retry", "Requeue"], remove: ["trash", "Remove"] };
const FITTING = { queued: ["hold", "requeue", "remove"], held: ["release", "remove"], failed: ["requeue", "remove"], sent: ["remove"], sending: [] };

const split = $("#split");
const detail = $("#detail");
let news = null;
let ahead = 0; // how much the server's clock is ahead of this one
let shown = null;
let state = "";
let oldestFirst = false;
let stamp = "";
let renewedIn = 0;
let renewal = 0;
const selected = new Map(); // id => state

const now = () => Date.now() / 1000 + ahead;
const pill = (name) => el("span", { class: `pill ${LOOKS[name] ?? ""}` }, name);

// --- the list ---

const list = new LongList($("#list"), {
  rowHeight: 84,
  growsAbove: () => !oldestFirst,
  async load(offset, limit) {
    const answer = await api(`/api/jobs?${new URLSearchParams({ state, q: $("#search").value, order: oldestFirst ? "oldest" : "newest", offset, limit })}`);
    renewedIn = answer.renewed_in;
    const kind = state || ($("#search").value ? "found" : "in all");
    $("#count").textContent = `${plural(answer.found, "job")}, ${kind}${answer.complete ? "" : ", of the first that were read"}`;
    return { found: answer.found, rows: answer.jobs };
  },
  fill(element, row) {
    element.setAttribute("aria-selected", String(selected.has(row.id)));
    const due = row.state === "queued" && row.due > now() ? `due in ${span(row.due - now())}` : "";
    const tries = row.attempts ? plural(row.attempts, "attempt") : "";
    const why = row.reason || row.reply || [size(row.size), due].filter(Boolean).join(", ");
    element.append(
      ...(news?.changes_allowed ? [el("span", { class: "row-mark", "aria-hidden": "true" }, el("i"))] : []),
      el("div", { class: "row-main" },
        el("div", { class: "row-line" }, el("span", { class: "who cut" }, row.recipients), pill(row.state)),
        el("div", { class: "row-line muted" }, el("span", { class: "cut" }, `from ${row.sender}`), el("time", { title: moment(row.created) }, [tries, due && row.reason ? due : "", clock(row.created)].filter(Boolean).join(" · "))),
        el("div", { class: `why cut ${row.state === "failed" ? "bad" : ""}` }, why)),
    );
  },
  opened: (row) => attempt(() => open(row.id)),
  toggled(row) {
    if (!news?.changes_allowed) return;
    if (!selected.delete(row.id)) selected.set(row.id, row.state);
    list.draw(true);
    showSelection();
  },
});

// The server reads its queue only now and then: an answer older than the change is asked for again.
async function renew() {
  clearTimeout(renewal);
  await list.refresh();
  if (renewedIn) renewal = setTimeout(() => attempt(renew), 1000 * renewedIn);
}

function showSelection() {
  const bar = $("#selection");
  bar.hidden = !selected.size;
  const fits = (action) => [...selected.values()].some((one) => FITTING[one].includes(action));
  bar.replaceChildren(el("span", {}, `${selected.size} selected`),
    ...Object.keys(ACTIONS).filter(fits).map((action) => button(action, [...selected.keys()], "small")),
    el("button", { class: "icon-button", type: "button", "aria-label": "Select none", onclick: selectNone }, icon("x")));
}

function selectNone() {
  selected.clear();
  list.draw(true);
  showSelection();
}

// --- changes ---

const button = (action, ids, kind = "") => el("button", { class: `button ${kind}`, type: "button", onclick: () => change(action, ids) }, icon(ACTIONS[action][0]), ACTIONS[action][1]);

async function change(action, ids) {
  if (action === "remove" && !(await ask(`Remove ${plural(ids.length, "job")}? The mail will not be delivered.`, "Remove"))) return;
  await attempt(async () => {
    const { done, errors } = await api("/api/changes", { method: "POST", body: { action, ids } });
    if (done.length) toast(`${ACTIONS[action][1]}: ${plural(done.length, "job")}`);
    for (const text of Object.values(errors).slice(0, 3)) toast(text, "bad");
    selectNone();
    await list.refresh();
    if (shown && ids.includes(shown.id)) {
      if (action === "remove") close();
      else await open(shown.id);
    }
  });
}

// --- one job ---

async function open(id) {
  shown = await api(`/api/jobs/${encodeURIComponent(id)}`);
  list.activeId = id;
  split.classList.add("open");
  show();
}

function close() {
  shown = null;
  split.classList.remove("open");
  overview();
  list.element.focus();
}

function show() {
  const allowed = news?.changes_allowed ? FITTING[shown.state] ?? [] : [];
  const head = el("div", { class: "detail-head" }, el("div", { class: "detail-title" },
    el("button", { class: "icon-button back", type: "button", "aria-label": "Back to the list", onclick: close }, icon("back")),
    el("h1", {}, shown.id, pill(shown.state)),
    el("div", { class: "actions" }, ...allowed.map((action) => button(action, [shown.id], "small")))));
  const body = el("div", { class: "job" });
  if (shown.state === "gone") body.append(el("p", { class: "muted" }, "It is not in the spool any more: delivered, or removed."));
  else body.append(facts(), el("h2", {}, plural(shown.recipients.length, "recipient")), el("ul", { class: "recipients" }, ...shown.recipients.map(recipient)));
  body.append(el("h2", {}, "History"), timeline());
  detail.replaceChildren(head, body);
}

function facts() {
  const made = el("dl", { class: "facts" });
  const add = (name, text) => text && made.append(el("dt", {}, name), el("dd", {}, text));
  add("Why", shown.reason);
  add("Doubt", shown.flagged && "an earlier attempt may have delivered it");
  add("From", shown.sender);
  add("Created", `${moment(shown.created)}, ${span(now() - shown.created)} ago`);
  if (shown.state === "queued") add("Due", shown.due > now() ? `${moment(shown.due)}, in ${span(shown.due - now())}` : "now");
  add("Expires", shown.expires && moment(shown.expires));
  add("Attempts", `${shown.attempts}${shown.recoveries ? `, ${plural(shown.recoveries, "worker")} died` : ""}`);
  add("Size", size(shown.size));
  add("Needs", shown.needs_utf8 && "a server with SMTPUTF8");
  add("Message-ID", shown.message_id);
  return made;
}

function recipient(one) {
  const look = { accepted: "good", refused: one.final ? "bad" : "warn", pending: "", unknown: "warn" }[one.outcome] ?? "warn";
  return el("li", {}, el("div", {}, el("span", { class: `pill ${look}` }, one.outcome)), el("div", {}, one.address),
    one.reply ? el("div", { class: "reply" }, one.reply) : null,
    one.at ? el("div", { class: "reply" }, moment(one.at), one.final || one.outcome === "pending" ? "" : ", tried again", one.queue_id ? `, queue id ${one.queue_id}` : "") : null);
}

/** The events that this process saw; from the job itself what it did not see. */
function timeline() {
  const events = [...shown.history];
  if (shown.created && !events.some((event) => event.what === "queued")) events.unshift({ at: shown.created, what: "queued", text: "" });
  if (!shown.history.length) {
    for (const one of shown.recipients ?? []) {
      if (one.at) events.push({ at: one.at, what: one.outcome === "accepted" ? "sent" : one.final ? "failed" : "deferred", text: `${one.address}: ${one.reply || one.outcome}` });
    }
  }
  if (shown.state === "queued" && shown.attempts) events.push({ at: shown.due, what: "next attempt", text: "" });
  events.sort((one, other) => one.at - other.at);
  return el("ul", { class: "timeline" }, ...events.map((event) => eventRow(event)));
}

function eventRow(event, withId = false) {
  return el("li", { class: EVENTS[event.what] ?? "" },
    el("b", {}, event.what), " ", el("time", {}, moment(event.at)),
    withId && event.id ? el("p", {}, el("a", { href: "#", onclick: (click) => { click.preventDefault(); attempt(() => open(event.id)); } }, event.id)) : null,
    event.text ? el("p", {}, event.text) : null,
    event.until ? el("p", {}, `${event.what === "paused" ? "again at" : "next attempt"} ${moment(event.until)}`) : null);
}

function overview() {
  if (news?.recent.length) {
    detail.replaceChildren(el("div", { class: "job" }, el("h2", {}, "Latest events"), el("ul", { class: "timeline" }, ...news.recent.map((event) => eventRow(event, true)))));
    return;
  }
  detail.replaceChildren(el("div", { class: "nothing" }, icon("mail"), el("h2", {}, news?.name ?? ""),
    el("p", {}, news?.processor ? "Nothing has happened since the processor started." : "Choose a job. The processor of this queue runs elsewhere, or not at all.")));
}

// --- the numbers ---

function showNumbers() {
  const { counts, processor, curve } = news;
  $("#states").replaceChildren(...STATES.map((name) => el("button", {
    type: "button", "aria-pressed": String(state === name), class: `${counts[name] ? LOOKS[name] : "none"}`,
    onclick: () => { state = state === name ? "" : name; showNumbers(); attempt(() => list.refresh({ reset: true })); },
  }, el("b", {}, counts[name].toLocaleString()), el("span", {}, name))));
  const made = $("#facts");
  made.replaceChildren();
  const add = (name, text) => text && made.append(el("dt", {}, name), el("dd", {}, text));
  add("Oldest", news.oldest ? `${span(now() - news.oldest)}` : "none");
  add("Next due", news.next_due ? (news.next_due > now() ? `in ${span(news.next_due - now())}` : "now") : "none");
  if (processor) add("Deferred", `${processor.deferred.toLocaleString()}, ${processor.rates.deferred}/s`);
  if (processor) add("Failed", `${processor.failed.toLocaleString()}, ${processor.rates.failed}/s`);
  if (counts.quarantined) add("Quarantined", plural(counts.quarantined, "file"));
  $("#depth").textContent = (counts.queued + counts.held + counts.sending).toLocaleString();
  draw($("#depth-curve"), curve.map(([at, depth]) => [at, depth]));
  $("#rate-figure").hidden = !processor;
  if (processor) {
    $("#rate").textContent = processor.rates.sent.toLocaleString();
    draw($("#rate-curve"), curve.slice(1).map(([at, , sent], place) => [at, Math.max(0, (sent - curve[place][2]) / Math.max(at - curve[place][0], 0.1))]));
  }
  showPause(processor);
}

function showPause(processor) {
  const pause = $("#pause");
  const stopped = processor?.paused_until;
  pause.hidden = !(stopped || news.problem);
  if (stopped) {
    const left = Math.max(0, processor.paused_until - now());
    pause.replaceChildren(icon("pause"), el("b", {}, left >= 1 ? `Paused for ${span(left)}` : "Trying again"), el("span", {}, processor.problem));
  } else if (news.problem) pause.replaceChildren(icon("pause"), el("b", {}, "The spool cannot be read"), el("span", {}, news.problem));
}

function draw(curve, points) {
  curve.replaceChildren();
  if (!points.length) return;
  if (points.length === 1) points = [points[0], [points[0][0] + 1, points[0][1]]];
  const [first, last] = [points[0][0], points.at(-1)[0]];
  const most = Math.max(...points.map(([, value]) => value), 1);
  const place = ([at, value]) => `${(((at - first) / (last - first || 1)) * 300).toFixed(1)},${(38 - (value / most) * 35).toFixed(1)}`;
  const line = points.map(place).join(" L");
  curve.append(svg("path", { class: "area", d: `M0,40 L${line} L300,40 Z` }), svg("path", { class: "stroke", d: `M${line}` }));
}

// --- the beginning ---

begin(list, {
  Escape(event) {
    if (event.target.id === "search") {
      event.target.value = "";
      event.target.blur();
      list.refresh({ reset: true });
    } else if (selected.size) selectNone();
    else close();
  },
});

$("#order").addEventListener("click", () => {
  oldestFirst = !oldestFirst;
  $("#order span").textContent = oldestFirst ? "Oldest first" : "Newest first";
  attempt(() => list.refresh({ reset: true }));
});
let pause = 0;
$("#search").addEventListener("input", () => {
  clearTimeout(pause);
  pause = setTimeout(() => attempt(() => list.refresh({ reset: true })), 200);
});

live("/api/events", (told) => {
  const began = news === null;
  news = told;
  ahead = told.now - Date.now() / 1000;
  showNumbers();
  // What has not changed need not be read again.
  const changed = JSON.stringify([told.counts, told.recent[0]?.number, told.next_due]);
  if (changed === stamp && !began) return;
  stamp = changed;
  attempt(async () => {
    await renew();
    if (shown && !detail.contains(document.activeElement)) await open(shown.id);
    else if (!shown) overview();
  });
});
