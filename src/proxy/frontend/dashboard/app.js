// The dashboard. What it shows comes from sellers, too, so all of it is set as text and never as markup. The token is kept
// for this tab only, and goes nowhere but into the header of calls to our own origin.

const TOKEN = "tollpass-token";
const SECRET = /^#[0-9a-f]{64}$/;
const SHOWN_PAYMENTS = 15;

// --- Elements --------------------------------------------------------------------------------------------------------

const byId = (id) => document.getElementById(id);

/** An element: attributes by name, listeners by "on…", and children, which are elements or text. */
function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function drawn(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const card = (title, ...children) => make("section", { class: "card" }, make("h2", {}, title), children);
const button = (text, act, kind) => make("button", { type: "button", class: kind, onclick: act }, text);
const tag = (text, kind = "") => make("span", { class: `tag ${kind}` }, text);

/** Pairs of a name and what it stands for; those without are left out. */
function facts(...pairs) {
  const shown = pairs.filter(([, value]) => value !== undefined && value !== null && value !== "");
  return make("dl", {}, shown.map(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

/** A table whose rows become blocks on a narrow screen. Its roles stay what they are then. */
function table(caption, heads, rows) {
  const classes = (head) => (head.endsWith(">") ? "right amount" : undefined);
  const names = heads.map((head) => head.replace(/>$/, ""));
  const cells = (row) => row.cells.map((cell, at) =>
    make("td", { role: "cell", "data-label": names[at], class: classes(heads[at]) }, cell ?? ""));
  return make("table", { role: "table", class: "stack" },
    make("caption", {}, caption),
    make("thead", { role: "rowgroup" }, make("tr", { role: "row" },
      names.map((name, at) => make("th", { role: "columnheader", scope: "col", class: classes(heads[at]) }, name)))),
    make("tbody", { role: "rowgroup" }, rows.map((row) => make("tr", { role: "row", class: row.class }, cells(row)))));
}

/** A bar of how much is used, from 0 to 1. */
function bar(name, used, text) {
  const part = Math.min(1, Math.max(0, used ?? 0));
  const kind = part >= 1 ? "bar full" : part >= 0.8 ? "bar high" : "bar";
  const inner = make("span");
  inner.style.width = `${part * 100}%`;
  return make("div", {
    class: kind, role: "meter", "aria-label": name, "aria-valuemin": 0, "aria-valuemax": 100,
    "aria-valuenow": Math.round(part * 100), "aria-valuetext": text,
  }, inner);
}

/** Commands with a button that copies them. */
function command(text) {
  const copy = button("Copy", async () => {
    await copyText(text);
    copy.textContent = "Copied";
    say("Copied");
    setTimeout(() => { copy.textContent = "Copy"; }, 2000);
  });
  copy.setAttribute("aria-label", `Copy: ${text}`);
  return make("div", { class: "command" }, make("pre", {}, text), copy);
}

async function copyText(text) {
  // Without TLS, browsers have a clipboard for pages of this machine only.
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const field = make("textarea", { readonly: true });
  field.value = text;
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}

const at = (milliseconds) => new Date(milliseconds).toLocaleString();
const clock = (milliseconds) => new Date(milliseconds).toLocaleTimeString();
const many = (count, one, more = `${one}s`) => `${count} ${count === 1 ? one : more}`;

function lasting(seconds) {
  if (seconds >= 86400) return many(Math.round(seconds / 86400), "day");
  if (seconds >= 3600) return many(Math.round(seconds / 3600), "hour");
  if (seconds >= 60) return many(Math.round(seconds / 60), "minute");
  return many(Math.max(0, Math.round(seconds)), "second");
}

let quiet;
/** Tells screen readers, and shows it for a while, unless the page shows it anyway. */
function say(text, isShown = false) {
  byId("said").classList.toggle("unseen", isShown);
  byId("said").textContent = text;
  clearTimeout(quiet);
  quiet = setTimeout(() => { byId("said").textContent = ""; }, 5000);
}

// --- Calls -----------------------------------------------------------------------------------------------------------

class SignedOut extends Error {}

async function call(path, { body, signal } = {}) {
  const headers = {};
  const token = sessionStorage.getItem(TOKEN);
  if (token) headers.authorization = `Bearer ${token}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  const response = await fetch(`/dashboard/${path}`, {
    method: body === undefined ? "GET" : "POST",
    body: body === undefined ? undefined : JSON.stringify(body),
    headers, signal, mode: "same-origin", credentials: "omit", cache: "no-store", redirect: "error",
  });
  if (response.ok) return response;
  const told = await response.json().catch(() => ({}));
  const text = told.error ?? told.detail ?? `The proxy responds with ${response.status}.`;
  if (response.status === 401) throw new SignedOut(text);
  throw new Error(text);
}

const read = async (name, query = "") => (await call(`api/${name}${query && `?${query}`}`)).json();
const change = async (name, body) => (await call(`api/${name}`, { body })).json();

/** Runs what a button does: once at a time, and says what failed. */
async function doing(control, work) {
  if (control) control.disabled = true;
  try {
    return await work();
  } catch (error) {
    if (error instanceof SignedOut) signedOut(error.message);
    else say(error.message);
    return undefined;
  } finally {
    if (control) control.disabled = false;
  }
}

// --- State -----------------------------------------------------------------------------------------------------------

let now = null;
/** The latest payments by their number, in their last state; the newest first when shown. */
const payments = new Map();
/** Those that the page has not shown yet. */
const fresh = new Set();
let hasFirst = false;
let streaming = null;

async function start() {
  if (SECRET.test(location.hash)) {
    const secret = location.hash.slice(1);
    // It must stay neither in the address nor in the history.
    history.replaceState(null, "", "/dashboard#/now");
    sessionStorage.removeItem(TOKEN);
    try {
      const { token } = await (await call("session", { body: { secret } })).json();
      sessionStorage.setItem(TOKEN, token);
    } catch (error) {
      return signedOut(error.message);
    }
  }
  if (!sessionStorage.getItem(TOKEN)) return signedOut();
  byId("parts").hidden = false;
  byId("tools").hidden = false;
  show();
  listen();
}

function signedOut(why) {
  streaming?.abort();
  streaming = null;
  now = null;
  sessionStorage.removeItem(TOKEN);
  byId("parts").hidden = true;
  byId("tools").hidden = true;
  state("Not signed in", "warn");
  const view = byId("view");
  view.replaceChildren(
    make("h1", { tabindex: -1 }, "Not signed in"),
    make("section", { class: "card" },
      why && make("p", { class: "failed" }, why),
      make("p", {}, "Run this where the proxy runs, and open the link that it prints:"),
      command("tollpass dashboard"),
      make("p", { class: "hint" }, "A link can be opened once. This page is then signed in until you close its tab.")));
  view.querySelector("h1").focus();
}

function state(text, kind) {
  byId("state").textContent = text;
  byId("state").className = `state ${kind}`;
}

/** Listens to news until the page signs out; connects again if the connection is lost. */
async function listen() {
  streaming?.abort();
  const own = new AbortController();
  streaming = own;
  let pause = 500;
  while (!own.signal.aborted) {
    try {
      const response = await call("news", { body: {}, signal: own.signal });
      pause = 500;
      hasFirst = false;
      await events(response.body, heard);
    } catch (error) {
      if (own.signal.aborted) return;
      if (error instanceof SignedOut) return signedOut(error.message);
    }
    if (own.signal.aborted) return;
    state("Connecting…", "warn");
    await new Promise((resolve) => setTimeout(resolve, pause));
    pause = Math.min(pause * 2, 10000);
  }
}

/** Reads server-sent events, whose format ours does not use in full: an event has a name and one line of data. */
async function events(body, each) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const parts = text.split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const name = part.match(/^event: (.*)$/m)?.[1];
      const data = part.match(/^data: (.*)$/m)?.[1];
      if (name && data) await each(name, JSON.parse(data));
    }
  }
}

async function heard(name, data) {
  if (name === "now") {
    const before = now;
    now = { ...data, at: Date.now() };
    told();
    announce(before, now);
    if (!hasFirst) await firstPayments();
    views[current()]?.changed?.(before);
  } else if (name === "rows") {
    for (const row of data) {
      remember(row);
      fresh.add(row.payment);
    }
    views[current()]?.rows?.(data);
  }
}

async function firstPayments() {
  hasFirst = true;
  const found = await doing(null, () => read("ledger"));
  for (const row of (found?.rows ?? []).slice(0, SHOWN_PAYMENTS).reverse()) remember(row);
}

function remember(row) {
  const known = payments.get(row.payment);
  if (known && known.seq >= row.seq) return;
  payments.delete(row.payment);
  payments.set(row.payment, row);
  while (payments.size > SHOWN_PAYMENTS) payments.delete(payments.keys().next().value);
}

/** What the header shows. */
function told() {
  if (now.is_frozen) state("Signs nothing: frozen", "bad");
  else if (now.obstacles.length) state("Cannot pay now", "warn");
  else state("Ready to pay", "good");
  byId("freeze").textContent = now.is_frozen ? "Sign again" : "Stop all signing";
  byId("waiting").hidden = now.pending.length === 0;
  byId("waiting").textContent = String(now.pending.length);
  byId("waiting").setAttribute("aria-label", `${many(now.pending.length, "payment")} to decide`);
  document.title = now.pending.length ? `(${now.pending.length}) tollpass` : "tollpass";
}

function announce(before, after) {
  const known = new Set((before?.pending ?? []).map((one) => one.id));
  for (const one of after.pending) {
    if (!known.has(one.id)) say(`A payment waits for you: ${one.shown} for ${one.host}`, current() === "now");
  }
}

// --- Views -----------------------------------------------------------------------------------------------------------

/** The part of the dashboard that the address names, and its filters. */
function place() {
  const [path, query = ""] = location.hash.slice(1).split("?");
  return { name: path.replace(/^\//, ""), filters: new URLSearchParams(query) };
}

const current = () => (Object.hasOwn(views, place().name) ? place().name : "now");

/** Changes filters in the address; the page follows. Without a new entry in the history for each letter. */
function filter(changes) {
  const { filters } = place();
  for (const [name, value] of Object.entries(changes)) value ? filters.set(name, value) : filters.delete(name);
  const query = filters.toString();
  history.replaceState(null, "", `#/${current()}${query && `?${query}`}`);
  views[current()].filtered?.();
}

function show() {
  const name = current();
  for (const link of byId("parts").querySelectorAll("a")) {
    if (link.getAttribute("href") === `#/${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  byId("view").replaceChildren();
  views[name].open(byId("view"));
}

const views = { now: nowView(), history: historyView(), channels: channelsView(), refused: refusedView(), setup: setupView() };

function title(text) {
  return make("h1", { tabindex: -1 }, text);
}

/** Replaces what an element shows if it differs, so that what the user does there goes on. */
function put(element, key, build) {
  const text = JSON.stringify(key);
  if (element.shownKey === text) return;
  element.shownKey = text;
  element.replaceChildren(...[build()].flat(Infinity).filter(Boolean));
}

// --- Now -------------------------------------------------------------------------------------------------------------

function nowView() {
  let parts = {};
  const show = () => {
    if (!now || !parts.alerts) return;
    put(parts.alerts, [now.obstacles, now.paused], alerts);
    put(parts.pending, now.pending.map(({ id }) => id), () => now.pending.map(question));
    put(parts.money, [now.balances, now.spent], money);
    put(parts.budgets, now.budgets, budgets);
    put(parts.payments, [...payments.values()], latest);
    put(parts.more, [now.holds, now.approvals], more);
  };
  return {
    open(view) {
      parts = Object.fromEntries(["alerts", "pending", "money", "budgets", "payments", "more"].map((name) => [name, make("div")]));
      view.append(title("Now"), parts.alerts, parts.pending,
        make("div", { class: "columns" }, make("div", {}, parts.money, parts.budgets), make("div", {}, parts.payments, parts.more)));
      show();
    },
    changed: show,
    rows: show,
  };
}

function alerts() {
  const shown = now.obstacles.map((one) => make("p", { class: "card bad" }, `Cannot pay now: ${one.details}`));
  if (now.paused.length) {
    shown.push(make("p", { class: "card warn" }, `${many(now.paused.length, "host is", "hosts are")} paused. `,
      make("a", { href: "#/refused" }, "See why")));
  }
  return shown;
}

function question(one) {
  const left = make("dd", { "data-until": now.at + one.left * 1000 }, lasting(one.left));
  const decide = (approve, always) => (event) => doing(event.currentTarget, async () => {
    await change("decide", { id: one.id, approve, always_for_s: always });
    say(approve ? `Approved: ${one.shown} for ${one.host}` : `Denied: ${one.shown} for ${one.host}`);
  });
  const days = make("select", {}, [[1, "1 day"], [7, "7 days"], [30, "30 days"]].map(([value, text]) =>
    make("option", { value, selected: value === 7 }, text)));
  const list = facts(["For", make("span", { class: "break" }, `${one.method} ${one.url}`)], ["Payee", one.payee],
    ["Asset", one.asset], ["By", one.scheme], ["Client", one.client]);
  list.append(make("dt", {}, "Ends in"), left);
  return make("section", { class: "card warn", "aria-label": `Payment ${one.id} to decide` },
    make("h2", {}, `Pay ${one.shown} to ${one.host}?`), list,
    make("div", { class: "row" },
      button("Approve", decide(true), "main"), button("Deny", decide(false), "danger")),
    make("details", {}, make("summary", {}, "Approve further ones like it, too"),
      make("p", { class: "hint" }, `Payments to the same host, payee and asset, of at most ${one.shown} each.`),
      make("div", { class: "row" }, make("label", {}, "For", days),
        button("Approve all of them", (event) => decide(true, Number(days.value) * 86400)(event)))));
}

function money() {
  const balances = (now.balances ?? []).map((one) => one.error
    ? make("li", {}, make("p", { class: "failed" }, one.error))
    : make("li", {}, make("p", { class: "big" }, one.shown), make("p", { class: "hint" }, `for ${one.for}, on ${one.network}`)));
  const spent = now.spent.map((one) => make("li", {}, make("p", { class: "big" }, one.shown),
    make("p", { class: "hint break" }, `${many(one.payments, "payment")}, in ${one.asset}`,
      one.unclear_payments ? `; ${one.unclear} of ${many(one.unclear_payments, "payment")} unclear` : "")));
  return [
    card("Balance", balances.length ? make("ul", { class: "plain" }, balances)
      : make("p", { class: "muted" }, now.balances ? "No node is configured that knows it." : "Not known yet."),
      now.payer && make("p", { class: "hint break" }, `Wallet ${now.payer}`)),
    card("Paid since the start", spent.length ? make("ul", { class: "plain" }, spent)
      : make("p", { class: "muted" }, "Nothing so far."), make("p", { class: "hint" }, `Since ${at(now.since)}`)),
  ];
}

const WINDOWS = {
  per_hour: "within an hour", per_day: "within a day", per_30_days: "within 30 days", per_calendar_day: "today",
  per_calendar_week: "this week", per_calendar_month: "this month", total: "ever",
};

function budgets() {
  const limit = (name, what, used, text, left) => make("div", { class: "limit" },
    make("p", {}, make("span", {}, what), make("span", { class: "hint" }, left)), bar(`${name}, ${what}`, used, text));
  const shown = now.budgets.map((budget) => {
    const name = budget.host ? `${budget.name} (${budget.host})` : budget.name;
    const windows = budget.windows.map((one) => limit(name, `${one.spent} of ${one.limit} ${WINDOWS[one.key] ?? one.key}`,
      one.used, `${one.spent} of ${one.limit}`, `${one.left} left`));
    const count = budget.payments;
    if (count) windows.push(limit(name, `${count.made} of ${many(count.most, "payment")}`, count.used,
      `${count.made} of ${count.most}`, `${Math.max(0, count.most - count.made)} left`));
    return make("li", {}, make("h3", { class: "break" }, name), windows);
  });
  return card("Budgets", shown.length ? make("ul", { class: "plain" }, shown)
    : make("p", { class: "muted" }, "There is none: write a [[budget]] to limit what is spent together."));
}

const STATES = {
  held: ["about to be sent", "warn"], sent: ["sent", "warn"], paid: ["paid", "good"],
  "paid-not-delivered": ["paid, not delivered", "bad"], refused: ["not accepted", "bad"], "in-doubt": ["unclear", "warn"],
  expired: ["expired unused", ""], unsent: ["never sent", ""], recovered: ["recovered", ""], settled: ["settled", ""],
  gap: ["rows are missing", "bad"],
};
const stateTag = (name) => tag(...(STATES[name] ?? [name, ""]));
const requested = (row) => [row.method, `${row.host}${row.path}` || row.channel].filter(Boolean).join(" ");

function latest() {
  const rows = [...payments.values()].reverse().map((row) => ({
    class: fresh.has(row.payment) ? "fresh" : undefined,
    cells: [clock(row.at), requested(row), stateTag(row.state), row.amount],
  }));
  fresh.clear();
  return card("Payments", rows.length ? table("The latest, as they happen", ["Time", "Request", "State", "Amount>"], rows)
    : make("p", { class: "muted" }, "None so far. They appear here as they happen."));
}

function more() {
  const revoke = (id) => (event) => doing(event.currentTarget, async () => {
    await change("revoke", { id });
    say("Revoked");
  });
  return [
    now.approvals.length > 0 && card("Approved in advance", make("ul", { class: "plain" }, now.approvals.map((one) =>
      make("li", {}, make("p", { class: "break" }, `${one.shown} each for ${one.host}, until ${at(one.until * 1000)}`),
        make("p", { class: "hint break" }, `to ${one.payee}`), button("Revoke", revoke(one.id)))))),
    now.holds.length > 0 && card("Held", make("p", { class: "hint" }, "Can be spent on nothing else until the outcome is certain."),
      make("ul", { class: "plain" }, now.holds.slice(0, 20).map((one) => make("li", {},
        make("p", {}, `${one.shown} `, tag(one.reason)), make("p", { class: "hint break" }, [one.host, one.until].filter(Boolean).join(": ")))))),
  ];
}

// --- History ---------------------------------------------------------------------------------------------------------

function historyView() {
  let parts = {};
  let known = null;
  let timer = null;
  let asked = 0;
  const filters = () => place().filters;

  const charts = async () => {
    known = await doing(null, () => read("history", `days=${filters().get("days") ?? 30}`));
    if (known) drawCharts();
  };
  const drawCharts = () => {
    const assets = known?.assets ?? [];
    const id = (asset) => `${asset.network}/${asset.token}`;
    const asset = assets.find((one) => id(one) === filters().get("asset")) ?? assets[0];
    put(parts.asset, assets.map(id), () => assets.map((one) =>
      make("option", { value: id(one) }, `${one.symbol} on ${one.network}`)));
    parts.asset.parentElement.hidden = assets.length < 2;
    parts.cut.hidden = !known?.is_cut;
    if (asset) parts.asset.value = id(asset);
    put(parts.charts, [known, asset && id(asset)], () => asset
      ? [days(asset), hosts(asset)]
      : make("p", { class: "muted" }, "Nothing was paid in this time."));
  };
  const ledger = async (before) => {
    const own = ++asked;
    const query = new URLSearchParams({ text: filters().get("text") ?? "", show: filters().get("show") ?? "", before: before ?? "" });
    const page = await doing(null, () => read("ledger", query.toString()));
    if (!page || own !== asked) return;
    parts.rows = before ? [...parts.rows, ...page.rows] : page.rows;
    const wantsRefused = filters().get("show") === "refused";
    const refused = wantsRefused && !before ? await doing(null, () => read("refused")) : null;
    if (refused) parts.refused.replaceChildren(refusals(refused, filters().get("text") ?? ""));
    if (!wantsRefused) parts.refused.replaceChildren();
    parts.ledger.replaceChildren(parts.rows.length ? table("The newest first, each in its last state",
      ["Time", "Request", "State", "Claim", "Chain", "Client", "Amount>"],
      parts.rows.map((row) => ({ cells: [at(row.at), requested(row), stateTag(row.state), row.claim, row.chain, row.client, row.amount] })))
      : make("p", { class: "muted" }, page.next ? "None among the newest payments; show more to search on." : "No payment is like that."));
    parts.next.hidden = !page.next;
    parts.next.onclick = () => doing(parts.next, () => ledger(page.next));
    for (const preset of parts.presets.querySelectorAll("button")) {
      preset.setAttribute("aria-pressed", String(preset.value === (filters().get("show") ?? "")));
      preset.className = preset.getAttribute("aria-pressed") === "true" ? "main" : "";
    }
  };
  return {
    open(view) {
      known = null;
      const range = make("select", { onchange: () => filter({ days: range.value }) },
        [[7, "7 days"], [30, "30 days"], [90, "90 days"], [365, "a year"]].map(([value, text]) => make("option", { value }, text)));
      range.value = filters().get("days") ?? "30";
      const asset = make("select", { onchange: () => filter({ asset: asset.value }) });
      const text = make("input", { type: "search", autocomplete: "off", value: filters().get("text") ?? "",
        oninput: () => { clearTimeout(timer); timer = setTimeout(() => filter({ text: text.value.trim() }), 250); } });
      const preset = (value, name) => make("button", { type: "button", value, onclick: () => filter({ show: value }) }, name);
      parts = {
        asset, rows: [], charts: make("div", { class: "columns" }),
        cut: make("p", { class: "hint", hidden: true }, "Older payments are not in these charts: only their sum is kept."), ledger: make("div"), refused: make("div"),
        next: make("button", { type: "button", hidden: true }, "Show more"),
        presets: make("div", { class: "row", role: "group", "aria-label": "Which payments" },
          preset("", "All"), preset("paid", "Paid"), preset("open", "Unclear"), preset("refused", "Refused")),
      };
      view.append(title("History"),
        make("div", { class: "row" }, make("label", {}, "Time", range), make("label", {}, "Asset", asset)), parts.charts, parts.cut,
        make("section", { class: "card" }, make("h2", {}, "Ledger"), parts.presets,
          make("div", { class: "row", role: "search" }, make("label", { class: "wide" }, "Request, host, client or payee contains", text)),
          parts.refused, parts.ledger, make("p", {}, parts.next)));
      charts();
      ledger();
    },
    filtered() {
      const days = Number(filters().get("days") ?? 30);
      if (known?.days !== days) charts();
      else drawCharts();
      ledger();
    },
    rows() {
      const own = parts;
      // A timer that runs is not set again, or payments that keep coming would put it off for ever.
      own.later ??= setTimeout(() => {
        own.later = null;
        if (own !== parts || current() !== "history") return;
        charts();
        if (parts.rows.length <= 50) ledger();
      }, 1000);
    },
  };
}

const day = (milliseconds) => new Date(milliseconds).toISOString().slice(0, 10);

function days(asset) {
  const most = Math.max(...asset.days.map((one) => one.value));
  const bars = asset.days.map((one, index) => {
    const tall = most > 0 ? (one.value / most) * 100 : 0;
    return drawn("rect", { x: index + 0.1, y: 100 - tall, width: 0.8, height: tall }, drawn("title", {}, `${day(one.at)}: ${one.shown}`));
  });
  const best = asset.days.find((one) => one.value === most);
  const chart = drawn("svg", { class: "chart", viewBox: `0 0 ${asset.days.length} 100`, preserveAspectRatio: "none", role: "img",
    "aria-label": `Paid on each day: ${asset.total.shown} in all, at most ${best.shown} on one day` }, bars);
  const ends = make("p", { class: "hint ends" }, make("span", {}, day(asset.days[0].at)), make("span", {}, day(asset.days.at(-1).at)));
  const paid = asset.days.filter((one) => one.payments || one.value).reverse();
  return card("By day",
    make("p", { class: "big" }, asset.total.shown),
    make("p", { class: "hint" }, many(asset.total.payments, "payment"), asset.total.unclear ? `; ${asset.total.unclear} still unclear` : "",
      `; at most ${best.shown} on one day (UTC)`), chart, ends,
    make("details", {}, make("summary", {}, "As a table"), table("Paid on each day", ["Day", "Payments>", "Paid>"],
      paid.map((one) => ({ cells: [day(one.at), String(one.payments), one.shown] })))));
}

function hosts(asset) {
  const most = Math.max(...asset.hosts.map((one) => one.value));
  const line = (one) => {
    const width = most > 0 ? Math.min(100, (one.value / most) * 100) : 0;
    return drawn("svg", { class: "line", viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" },
      drawn("rect", { x: 0, y: 0, width, height: 8 }));
  };
  const rows = asset.hosts.map((one) => make("li", {}, make("p", { class: "row" },
    make("a", { class: "break", href: `#/history?${new URLSearchParams({ text: one.host })}` }, one.host || "unknown requests"),
    make("span", { class: "amount" }, one.shown), make("span", { class: "hint" }, many(one.payments, "payment"),
      one.unclear ? `; ${one.unclear} still unclear` : "")), line(one)));
  if (asset.others) rows.push(make("li", {}, `${many(asset.others.hosts, "other host")}: ${asset.others.shown}`));
  return card("By host", make("ul", { class: "plain" }, rows));
}

// --- Channels --------------------------------------------------------------------------------------------------------

function channelsView() {
  let list = null;
  let form = null;
  let timer = null;
  const load = async () => {
    const found = await doing(null, () => read("channels"));
    if (!found || !list) return;
    put(form, [found.unit, found.is_ready], () => opening(found, load));
    put(list, found, () => !found.is_ready
      ? make("p", { class: "card warn" }, "There is no [chain], or it has not been read yet: payments that need a channel are not made.")
      : found.channels.length ? found.channels.map((one) => channel(one, found.unit, load))
        : make("p", { class: "card muted" }, "There is no channel. tollpass opens one with the first payment that needs it."));
  };
  return {
    open(view) {
      [list, form] = [make("div"), make("div")];
      view.append(title("Channels"), list, form);
      load();
    },
    rows() {
      // As in the history, a timer that runs is not set again.
      timer ??= setTimeout(() => {
        timer = null;
        if (current() === "channels") load();
      }, 500);
    },
  };
}

function channel(one, unit, load) {
  const id = { channel: one.id };
  const actions = one.phase === "open" ? [
    button("Top up", () => amountFor(one, unit, load)),
    button("Close", () => confirmed({ do: "close_together", ...id }, "Close this channel?", load), "danger"),
    button("Close without the seller", () => confirmed({ do: "close_alone", ...id }, "Close without the seller?", load), "danger"),
  ] : one.phase === "closing" ? [button("Settle", () => confirmed({ do: "settle", ...id }, "Settle this channel?", load))] : [];
  return make("section", { class: "card", "aria-label": `Channel ${one.id}` },
    make("h2", { class: "break" }, one.host ?? one.receiver, " ", tag(one.phase, one.phase === "open" ? "good" : "warn")),
    make("p", { class: "hint break" }, one.id),
    bar("Promised of the deposit", one.used, `${one.promised} of ${one.deposit}`),
    facts(["Deposit", one.deposit], ["Promised", `${one.in_doubt ? "at most " : ""}${one.promised}`],
      ["Acknowledged", one.acknowledged], ["Left", one.left]),
    make("div", { class: "row" }, actions));
}

function opening(found, load) {
  if (!found.is_ready) return [];
  const receiver = make("input", { required: true, autocomplete: "off", spellcheck: "false" });
  const deposit = make("input", { required: true, inputmode: "decimal", autocomplete: "off" });
  const submit = (event) => {
    event.preventDefault();
    confirmed({ do: "open", receiver: receiver.value, deposit: deposit.value }, "Open this channel?", load);
  };
  return card("Open a channel", make("form", { onsubmit: submit },
    make("label", { class: "wide" }, "Address of the seller", receiver), make("label", {}, `Deposit, in ${found.unit}`, deposit),
    make("button", { type: "submit" }, "Continue")),
    button("Read all channels from the chain again", (event) => doing(event.currentTarget, async () => {
      say((await change("operate", { do: "sync" })).text);
      await load();
    })));
}

function amountFor(one, unit, load) {
  const added = make("input", { required: true, inputmode: "decimal", autocomplete: "off" });
  dialog("Top up this channel", make("form", { onsubmit: (event) => {
    event.preventDefault();
    byId("dialog").close();
    confirmed({ do: "top_up", channel: one.id, added: added.value }, "Top up this channel?", load);
  } }, make("label", {}, `How much more, in ${unit}`, added), make("button", { type: "submit", class: "main" }, "Continue"),
  button("Cancel", () => byId("dialog").close())));
  added.focus();
}

function dialog(question, ...children) {
  const box = byId("dialog");
  box.replaceChildren(make("h2", { id: "question" }, question), ...children);
  if (!box.open) box.showModal();
}

/** Shows what an operation would do, and does it if the user agrees. */
async function confirmed(operation, question, done) {
  const box = byId("dialog");
  dialog(question, make("p", { class: "muted" }, "Asking what it would do…"));
  try {
    const plan = await change("plan", operation);
    const act = button("Do it", () => doing(act, async () => {
      const cancel = act.nextElementSibling;
      cancel.textContent = "Close";
      box.append(make("p", { class: "muted", role: "status" }, "Waiting for the chain. It goes on if you close this."));
      try {
        say((await change("operate", operation)).text);
        box.close();
      } catch (error) {
        box.append(make("p", { class: "failed", role: "alert" }, error.message));
        throw error;
      } finally {
        await done();
      }
    }), "main");
    dialog(question, make("p", { class: "break" }, plan.text),
      plan.fees && make("p", { class: "hint" }, `Fees: ${plan.fees}`),
      make("div", { class: "row" }, act, button("Cancel", () => box.close())));
    act.focus();
  } catch (error) {
    if (error instanceof SignedOut) { box.close(); return signedOut(error.message); }
    dialog(question, make("p", { class: "failed", role: "alert" }, error.message), button("Close", () => box.close()));
  }
  return undefined;
}

// --- Not paid --------------------------------------------------------------------------------------------------------

function refusals(found, text) {
  const wanted = text.toLowerCase();
  const rows = found.latest.filter((one) => `${one.method} ${one.url} ${one.reason} ${one.details}`.toLowerCase().includes(wanted));
  return rows.length ? table(`${text ? "Among the" : "The"} last ${found.latest.length} of ${many(found.count, "request")} that were not paid since the start`,
    ["Time", "Request", "Reason", "Details"],
    rows.map((one) => ({ cells: [at(one.at), `${one.method} ${one.url}`, tag(one.reason), one.details] })))
    : make("p", { class: "muted" }, "No request was refused a payment, or none like that.");
}

function refusedView() {
  let parts = {};
  let timer = null;
  const text = () => place().filters.get("text") ?? "";
  const show = () => {
    if (!now || !parts.paused) return;
    put(parts.paused, now.paused, paused);
    put(parts.unsupported, now.unsupported, () => now.unsupported.length > 0 && card("Offers that tollpass cannot pay",
      make("ul", { class: "plain" }, now.unsupported.slice(0, 30).map((one) => make("li", {},
        make("p", { class: "break" }, one.offer), make("p", { class: "hint" }, many(one.count, "time")))))));
  };
  const load = async () => {
    const found = await doing(null, () => read("refused"));
    if (found && parts.list) put(parts.list, [found, text()], () => refusals(found, text()));
  };
  return {
    open(view) {
      parts = { paused: make("div"), list: make("div"), unsupported: make("div") };
      const input = make("input", { type: "search", autocomplete: "off", value: text(),
        oninput: () => { clearTimeout(timer); timer = setTimeout(() => filter({ text: input.value.trim() }), 250); } });
      view.append(title("Not paid"), parts.paused,
        make("section", { class: "card" }, make("h2", {}, "Refused"),
          make("div", { class: "row", role: "search" }, make("label", { class: "wide" }, "Request, reason or details contain", input)),
          parts.list), parts.unsupported);
      show();
      load();
    },
    filtered: load,
    changed(before) {
      show();
      if (before?.refused !== now.refused) load();
    },
  };
}

function paused() {
  const resume = (host) => (event) => doing(event.currentTarget, async () => {
    await change("resume", { host });
    say(`${host} is paid again`);
  });
  return now.paused.length > 0 && card("Paused hosts", make("p", { class: "hint" }, "They are not paid until you resume them."),
    make("ul", { class: "plain" }, now.paused.map((one) => make("li", {},
      make("p", { class: "break" }, make("strong", {}, one.host), `: ${one.reason}`),
      make("p", { class: "hint" }, `Since ${at(one.since * 1000)}`), button("Resume", resume(one.host))))));
}

// --- Set-up ----------------------------------------------------------------------------------------------------------

function setupView() {
  const steps = (list) => list.map((step) => (step.run ? command(step.run) : make("p", {}, step.do)));
  return {
    async open(view) {
      const place = make("div");
      view.append(title("Set-up"), place);
      const setup = await doing(null, () => read("setup"));
      if (!setup) return;
      fill(place, {}, [
        card("This proxy", command(setup.proxy)),
        make("h2", {}, "Systems"),
        setup.systems.map((one) => make("details", { class: "card" }, make("summary", {}, one.system), steps(one.steps),
          make("h3", {}, "Undo"), steps(one.undo))),
        make("h2", {}, "Programs"),
        setup.programs.map((one) => make("details", { class: "card" }, make("summary", {}, one.program),
          one.commands.length > 0 && command(one.commands.join("\n")), one.notes && make("p", {}, one.notes),
          make("p", { class: "hint" }, `Undo: ${one.undo}`))),
      ]);
    },
  };
}

// --- Start -----------------------------------------------------------------------------------------------------------

byId("freeze").addEventListener("click", (event) => {
  const frozen = !now?.is_frozen;
  if (!frozen) return doing(event.currentTarget, () => change("freeze", { frozen }).then(() => say("tollpass signs again")));
  dialog("Stop all signing?", make("p", {}, "tollpass then pays nothing and sends no transaction, also after a restart, until you let \
it sign again. What was signed before may still be redeemed."),
    make("div", { class: "row" }, button("Stop", (inner) => doing(inner.currentTarget, async () => {
      await change("freeze", { frozen });
      byId("dialog").close();
      say("tollpass signs nothing now");
    }), "danger"), button("Cancel", () => byId("dialog").close())));
  return undefined;
});
byId("leave").addEventListener("click", (event) => doing(event.currentTarget, async () => {
  await call("session/end", { body: {} });
  signedOut();
}));
setInterval(() => {
  for (const left of document.querySelectorAll("[data-until]")) left.textContent = lasting((left.dataset.until - Date.now()) / 1000);
}, 1000);
addEventListener("hashchange", () => {
  if (SECRET.test(location.hash)) return start();
  if (!sessionStorage.getItem(TOKEN)) return undefined;
  show();
  byId("view").querySelector("h1")?.focus();
  return undefined;
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("view").focus();
});
start();
