// The console: looks at the cluster again and again, through whichever front answers, and tells what has changed.

import { Refused, ask, at, element } from "/shop/api.js";
import { Plot } from "/console/plot.js";

const LOOK_MS = 1000;
const WINDOW_MS = 120000;
const STORY_LINES = 50;

let token = "";
let looking;
/** What was seen last: of nodes by id, of fronts by name and process. */
let leader = null;
let hasLooked = false;
const silent = new Set();
const broken = new Set();
const fronts = new Map();
let revisionSeen = null;

const rate = (value) => value.toFixed(value < 10 ? 1 : 0);
const millis = (value) => `${value.toFixed(1)} ms`;
const bytes = (value) => (value < 1 << 30 ? `${(value / 2 ** 20).toFixed(1)} MiB` : `${(value / 2 ** 30).toFixed(1)} GiB`);
const plots = {
  revisions: new Plot(at("revisions"), WINDOW_MS, rate),
  requests: new Plot(at("requests"), WINDOW_MS, rate),
  latencies: new Plot(at("latencies"), WINDOW_MS, millis),
  looks: new Plot(at("looks"), WINDOW_MS, millis),
};

const say = (text) => { at("message").textContent = text; };
const send = (method, path) => ask(method, path, { headers: { Authorization: `Bearer ${token}` } });

function tell(text) {
  const time = new Date().toLocaleTimeString();
  at("story").prepend(element("li", {}, element("span", { class: "small" }, `${time} `), text));
  while (at("story").children.length > STORY_LINES) at("story").lastChild.remove();
}

async function look() {
  const started = performance.now();
  try {
    const cluster = await send("GET", "/v1/cluster");
    const now = performance.now();
    say("");
    at("token-form").hidden = true;
    at("seen").hidden = at("forget").hidden = false;
    at("front").textContent = cluster.front.name;
    compare(cluster.nodes, now);
    showNodes(cluster.nodes);
    showRates(cluster, now);
    plots.looks.add(now, [now - started]);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    say(error.message);
    if (error.status === 401 || error.status === 403) return;
  }
  looking = setTimeout(look, LOOK_MS);
}

// ---- nodes --------------------------------------------------------------------------------------------------------

function leaderOf(nodes) {
  const leaders = nodes.filter((node) => node.role === "leader");
  return leaders.reduce((best, node) => (best && best.term >= node.term ? best : node), null);
}

/** Tells what is not as it was. */
function compare(nodes, now) {
  const found = leaderOf(nodes);
  const mark = () => Object.values(plots).forEach((plot) => plot.mark(now));
  if (leader && !found) { tell("Nobody leads."); mark(); }
  if (found && (!leader || leader.node_id !== found.node_id || leader.term !== found.term)) {
    tell(`Node ${found.node_id} leads, in term ${found.term}.`);
    // The first look finds a leader, and no election.
    if (hasLooked) mark();
  }
  leader = found;
  hasLooked = true;
  for (const node of nodes) {
    const isSilent = Boolean(node.error);
    if (isSilent !== silent.has(node.node_id)) tell(isSilent ? `Node ${node.node_id} does not answer.` : `Node ${node.node_id} answers again.`);
    if (isSilent) silent.add(node.node_id); else silent.delete(node.node_id);
  }
  const digests = new Map();
  for (const node of nodes.filter((one) => !one.error)) {
    const known = digests.get(node.revision);
    // Between two revisions a sweep may remove what nobody can see: so only a difference that stays is one.
    const key = `${node.node_id}`;
    if (known && known !== node.digest) {
      if (broken.has(key)) tell(`Node ${node.node_id} differs from another at revision ${node.revision}.`);
      broken.add(key);
    } else broken.delete(key);
    digests.set(node.revision, known || node.digest);
  }
}

function showNodes(nodes) {
  const last = leader ? leader.last_log_index : 0;
  at("nodes").replaceChildren(...nodes.map((node) => {
    if (node.error) return element("tr", { class: "silent" }, cell(node.node_id), cell(node.address), element("td", { colspan: "7" }, `no answer: ${node.error}`));
    const lag = leader ? Math.max(0, last - node.applied_index) : "–";
    return element("tr", { class: node.role },
      cell(node.node_id), cell(node.address), cell(node.role), number(node.term), number(node.revision), number(lag),
      element("td", {}, element("code", { title: node.digest }, node.digest.slice(0, 8))), number(bytes(node.disk_bytes)), number(bytes(node.disk_free_bytes)));
  }));
}

const cell = (text) => element("td", {}, String(text));
const number = (text) => element("td", { class: "number" }, String(text));

// ---- rates --------------------------------------------------------------------------------------------------------

function showRates({ nodes, front }, now) {
  const revision = Math.max(0, ...nodes.filter((node) => !node.error).map((node) => node.revision));
  const before = revisionSeen;
  revisionSeen = { revision, now };
  if (before) plots.revisions.add(now, [Math.max(0, revision - before.revision) / ((now - before.now) / 1000)]);
  // Each answer tells of one front: its rates stand until it is asked again, or has not been for long.
  const name = `${front.name} ${front.process}`;
  const known = fronts.get(name);
  fronts.set(name, { seen: front.traffic, now, rates: known ? rates(known, front.traffic, now) : null });
  for (const [key, value] of fronts) if (now - value.now > 10 * LOOK_MS) fronts.delete(key);
  const all = [...fronts.values()].map((value) => value.rates).filter(Boolean);
  if (all.length === 0) return;
  const sum = (of) => all.reduce((total, one) => total + of(one), 0);
  plots.requests.add(now, [sum((one) => one.reads), sum((one) => one.writes)]);
  const counts = all[0].durations.map((_, index) => sum((one) => one.durations[index]));
  plots.latencies.add(now, [0.5, 0.99].map((share) => quantile(counts, front.traffic.bounds_us, share)));
}

function rates(before, traffic, now) {
  const seconds = (now - before.now) / 1000;
  return {
    reads: (traffic.reads - before.seen.reads) / seconds,
    writes: (traffic.writes - before.seen.writes) / seconds,
    durations: traffic.durations.map((count, index) => count - before.seen.durations[index]),
  };
}

/** The bound of the class that the share falls in, in milliseconds; null of nothing. */
function quantile(counts, bounds, share) {
  const all = counts.reduce((total, count) => total + count, 0);
  if (all === 0) return null;
  let sum = 0;
  const index = counts.findIndex((count) => { sum += count; return sum >= all * share; });
  return bounds[Math.min(index, bounds.length - 1)] / 1000;
}

// ---- users --------------------------------------------------------------------------------------------------------

async function lookUp() {
  const user = encodeURIComponent(`user:${at("user").value.trim()}`);
  try {
    say("");
    const [{ sessions }, cart] = await Promise.all([send("GET", `/v1/users/${user}/sessions`), send("GET", `/v1/carts/${user}`)]);
    const time = (ms) => new Date(ms).toLocaleString();
    at("sessions").replaceChildren(...(sessions.length ? sessions.map((session) =>
      element("li", {}, element("code", {}, session.handle),
        element("span", { class: "small" }, ` ${session.client.browser || "unknown"}, last seen ${time(session.last_seen_ms)} `),
        element("button", { type: "button", class: "danger", onclick: () => end(user, session.handle) }, "End this session")))
      : [element("li", {}, "none")]));
    at("user-cart").replaceChildren(...(cart.lines.length
      ? cart.lines.map((line) => element("li", {}, `${line.quantity} × ${line.sku}`)) : [element("li", {}, "empty")]));
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    say(error.message);
  }
}

async function end(user, handle) {
  try {
    await send("DELETE", `/v1/users/${user}/sessions/${encodeURIComponent(handle)}`);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    say(error.message);
    return;
  }
  await lookUp();
}

at("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = at("token").value.trim();
  at("token").value = "";
  clearTimeout(looking);
  look();
});
at("user-form").addEventListener("submit", (event) => { event.preventDefault(); lookUp(); });
at("forget").addEventListener("click", () => { clearTimeout(looking); token = ""; location.reload(); });
