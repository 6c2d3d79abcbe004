// The shop: one page, one visitor, one cart, and a stream that tells what becomes of it.

import { Refused, ask, at, element, money } from "/shop/api.js";

const API = "/shop/api";
const RECONNECT_MS = 500;

let catalogue = new Map();
let currency = "EUR";
let visitor = { user: undefined, csrf: "" };
let cartRevision = -1;
let stream;
/** Other windows of this browser have the same cookie. */
const windows = new BroadcastChannel("trolley-shop");

const price = (cents) => money(cents, currency);
const say = (text) => { at("message").textContent = text; };

function answered(headers) {
  for (const [id, name] of [["front", "x-trolley-front"], ["node", "x-trolley-node"], ["revision", "x-trolley-revision"]]) {
    const value = headers.get(name);
    if (value) at(id).textContent = value;
  }
}

const send = (method, path, body) =>
  ask(method, API + path, { body, answered, headers: method === "GET" ? {} : { "X-CSRF-Token": visitor.csrf } });

/**
 * One window of this browser at a time: while one logs in, no other may find the old session gone and begin a new one, whose
 * cookie would take the place of the user's.
 */
const alone = (work) => navigator.locks.request("trolley-session", work);

/** Sends a change. A session that has ended meanwhile makes room for another, and the change is made there. */
async function change(method, path, body, renew = () => alone(begin)) {
  try {
    return await send(method, path, body);
  } catch (error) {
    if (!(error instanceof Refused && error.reason === "SESSION_ENDED")) throw error;
    await renew();
    return send(method, path, body);
  }
}

/** Does what a click asks for, and says why not. `fresh` takes back what was said before. */
async function attempt(work, fresh = true) {
  try {
    if (fresh) say("");
    await work();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    say(error.message);
  }
}

// ---- the visitor --------------------------------------------------------------------------------------------------

/** Asks who this is; begins a session if there is none. */
async function begin() {
  const before = visitor.user;
  take(await send("POST", "/session"));
  if (before && !visitor.user) say("You were logged out.");
  follow();
}

function take(view) {
  const isOther = view.user !== visitor.user || view.csrf !== visitor.csrf;
  visitor = { user: view.user, csrf: view.csrf };
  if (isOther) cartRevision = -1;
  at("who").textContent = visitor.user ? visitor.user : "Guest";
  document.querySelectorAll("[data-guest]").forEach((shown) => { shown.hidden = Boolean(visitor.user); });
  document.querySelectorAll("[data-user]").forEach((shown) => { shown.hidden = !visitor.user; });
  show(view.cart);
}

// ---- catalogue and cart -------------------------------------------------------------------------------------------

async function showCatalogue() {
  const found = await ask("GET", `${API}/catalogue`, { answered });
  currency = found.currency;
  catalogue = new Map(found.items.map((item) => [item.sku, item]));
  at("items").replaceChildren(...found.items.map((item, index) =>
    element("li", { class: `item tone-${index % 4}` },
      element("span", { class: "picture", "aria-hidden": "true" }, item.name[0]),
      element("h3", {}, item.name),
      element("p", {}, item.words),
      element("p", { class: "price" }, price(item.price_minor_units)),
      element("button", { type: "button", id: `add-${item.sku}`, onclick: () => add(item) }, "Add to cart",
        element("span", { class: "hidden" }, `: ${item.name}`)))));
}

const add = (item) => attempt(async () => {
  take(await change("POST", "/cart/lines", { sku: item.sku, quantity: 1 }));
  say(`${item.name} is in the cart.`);
});

const setQuantity = (line, quantity) => attempt(async () => {
  const path = `/cart/lines/${line.line_id}`;
  take(quantity > 0 ? await change("PUT", path, { quantity }) : await change("DELETE", path));
});

/** Orders what this window shows, once, however often the button is pressed. */
async function order() {
  if (!visitor.user) {
    say("Log in or register: an order is somebody's.");
    open("log-in");
    return;
  }
  at("order").disabled = true;
  await attempt(async () => {
    const placed = await send("POST", "/orders", { mod_revision: cartRevision });
    say(`Order ${placed.number} is placed.`);
    at("message").append(" ", element("a", { href: "/shop/orders" }, "Your orders"));
  });
  // What became of the cart, if the stream has not told it yet.
  await attempt(async () => take(await send("GET", "/session")), false);
  at("order").disabled = false;
}

/** Shows a cart, unless a newer one is shown. */
function show(cart) {
  if (cart.mod_revision < cartRevision) return;
  cartRevision = cart.mod_revision;
  at("cart").hidden = cart.lines.length === 0;
  at("order").hidden = cart.lines.length === 0;
  at("empty").hidden = cart.lines.length > 0;
  at("count").textContent = cart.total_quantity;
  at("subtotal").textContent = price(cart.subtotal ? cart.subtotal.minor_units : 0);
  // A button keeps the focus over a change, so that a keyboard can press it again.
  const focused = document.activeElement && document.activeElement.id;
  at("lines").replaceChildren(...cart.lines.map(row));
  if (focused && at(focused)) at(focused).focus();
}

function row(line) {
  const item = catalogue.get(line.sku);
  const name = item ? item.name : line.sku;
  const button = (what, label, quantity) =>
    element("button", { type: "button", id: `${what}-${line.sku}`, "aria-label": `${label}: ${name}`, onclick: () => setQuantity(line, quantity) },
      { less: "−", more: "+", remove: "×" }[what]);
  return element("tr", { "data-sku": line.sku },
    element("td", {}, name),
    element("td", { class: "pieces" }, button("less", "One piece less", line.quantity - 1),
      element("output", {}, String(line.quantity)), button("more", "One piece more", line.quantity + 1)),
    element("td", { class: "number" }, price(line.total_minor_units)),
    element("td", {}, button("remove", "Remove", 0)));
}

// ---- what happens elsewhere ---------------------------------------------------------------------------------------

function follow() {
  if (stream) stream.close();
  const mine = new EventSource(`${API}/events`);
  stream = mine;
  const live = (text) => { if (stream === mine) at("live").textContent = text; };
  mine.addEventListener("open", () => live("live"));
  mine.addEventListener("cart", (event) => { if (stream === mine) show(JSON.parse(event.data)); });
  for (const name of ["stale", "ended"]) mine.addEventListener(name, () => { if (stream === mine) again(); });
  mine.addEventListener("error", () => {
    live("reconnecting");
    // A refusal ends an event source for good; a connection that broke does not.
    if (mine.readyState === EventSource.CLOSED && stream === mine) again();
  });
}

function again() {
  stream.close();
  stream = undefined;
  setTimeout(() => { if (!stream) attempt(() => alone(begin)); }, RECONNECT_MS);
}

// ---- coming and going ---------------------------------------------------------------------------------------------

function open(way) {
  const words = way === "register" ? "Register" : "Log in";
  at("enter").dataset.way = way;
  at("enter-title").textContent = words;
  at("submit").textContent = words;
  at("refusal").textContent = "";
  at("hint").hidden = way !== "register";
  at("password").autocomplete = way === "register" ? "new-password" : "current-password";
  at("enter").showModal();
}

async function enter() {
  const credentials = { address: at("address").value, password: at("password").value };
  at("submit").disabled = true;
  try {
    await alone(async () => take(await change("POST", `/${at("enter").dataset.way}`, credentials, begin)));
    at("enter").close();
    at("password").value = "";
    say(`Welcome, ${visitor.user}.`);
    windows.postMessage("other session");
    follow();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    at("refusal").textContent = error.message;
  } finally {
    at("submit").disabled = false;
  }
}

const leave = (path) => attempt(async () => {
  await alone(async () => {
    await send("POST", path);
    visitor = { user: undefined, csrf: "" };
    await begin();
  });
  windows.postMessage("other session");
  say("You are logged out.");
});

async function showDevices() {
  const { sessions } = await send("GET", "/devices");
  const time = (ms) => new Date(ms).toLocaleString();
  at("device-list").replaceChildren(...sessions.map((device) =>
    element("li", {},
      element("b", {}, device.current ? "This browser" : "Another browser"),
      element("span", { class: "small" }, ` ${device.client.browser || "unknown"}, from ${device.client.network || "unknown"}, last seen ${time(device.last_seen_ms)} `),
      ...(device.current ? [] : [element("button", { type: "button", onclick: () => end(device) }, "Log out")]))));
}

const end = (device) => attempt(async () => {
  await send("DELETE", `/devices/${encodeURIComponent(device.handle)}`);
  await showDevices();
});

at("open-register").addEventListener("click", () => open("register"));
at("open-log-in").addEventListener("click", () => open("log-in"));
at("cancel").addEventListener("click", () => at("enter").close());
at("enter-form").addEventListener("submit", (event) => { event.preventDefault(); enter(); });
at("order").addEventListener("click", order);
at("log-out").addEventListener("click", () => leave("/log-out"));
at("open-devices").addEventListener("click", () => attempt(async () => { await showDevices(); at("devices").showModal(); }));
at("close-devices").addEventListener("click", () => at("devices").close());
at("everywhere").addEventListener("click", () => { at("devices").close(); leave("/log-out-everywhere"); });
windows.addEventListener("message", () => attempt(() => alone(begin)));

await attempt(showCatalogue);
await attempt(() => alone(begin));
