// The visitor's orders, the newest first.

import { Refused, ask, at, element, money } from "/shop/api.js";

const API = "/shop/api";

const { items } = await ask("GET", `${API}/catalogue`);
const names = new Map(items.map((item) => [item.sku, item.name]));
let cursor;

async function showMore() {
  try {
    const page = await ask("GET", `${API}/orders${cursor ? `?cursor=${encodeURIComponent(cursor)}` : ""}`);
    at("orders").append(...page.orders.map(shown));
    at("empty").hidden = at("orders").childElementCount > 0;
    cursor = page.next_cursor;
    at("older").hidden = !cursor;
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    at("message").textContent = ["NOT_LOGGED_IN", "SESSION_ENDED"].includes(error.reason) ? "Log in at the shop to see your orders." : error.message;
  }
}

function shown(order) {
  const price = (cents) => money(cents, order.currency);
  const title = `order-${order.number}`;
  return element("li", { class: "order", "aria-labelledby": title },
    element("h2", { id: title }, `Order ${order.number}`),
    element("p", { class: "small" }, `${new Date(order.placed_ms).toLocaleString()}`),
    element("table", {},
      element("thead", {}, element("tr", {}, ...["Item", "Pieces"].map((name) => element("th", { scope: "col" }, name)),
        element("th", { scope: "col", class: "number" }, "Total"))),
      element("tbody", {}, ...order.lines.map((line) => element("tr", { "data-sku": line.sku },
        element("td", {}, names.get(line.sku) || line.sku), element("td", {}, String(line.quantity)),
        element("td", { class: "number" }, price(line.total_minor_units))))),
      element("tfoot", {}, element("tr", {}, element("th", { scope: "row", colspan: "2" }, "Together"),
        element("td", { class: "number" }, price(order.total_minor_units))))));
}

at("older").addEventListener("click", showMore);
await showMore();
