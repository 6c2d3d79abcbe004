// The front that Trolley's is measured beside: Express, whose sessions connect-redis keeps, with the cart in the session.
//
// As fast as it can be without giving up what it promises: nothing is sent that nobody asked for, a session that was only read is
// not written, and a change is answered when Redis has it on its disk.
//
// Environment: PORT, REDIS_PORT, WORKERS (processes that share the port).

'use strict';

const cluster = require('node:cluster');
const express = require('express');
const session = require('express-session');
const { RedisStore } = require('connect-redis');
const { createClient } = require('redis');

const { PORT, REDIS_PORT, WORKERS } = process.env;

async function serve() {
  const client = createClient({ url: `redis://127.0.0.1:${REDIS_PORT}` });
  await client.connect();
  const app = express();
  app.disable('etag');
  app.disable('x-powered-by');
  app.use(session({
    store: new RedisStore({ client, disableTouch: true }),
    secret: 'a secret of at least thirty-two bytes',
    resave: false,
    saveUninitialized: false,
  }));
  app.get('/cart', (request, response) => {
    const lines = request.session.lines || [];
    response.json({ lines, total_quantity: lines.reduce((sum, line) => sum + line.quantity, 0) });
  });
  app.post('/cart/lines', express.json(), (request, response, next) => {
    const { sku, quantity } = request.body;
    if (typeof sku !== 'string' || !Number.isInteger(quantity) || quantity < 1) {
      response.status(400).json({ reason: 'MALFORMED' });
      return;
    }
    const lines = request.session.lines ||= [];
    let line = lines.find((other) => other.sku === sku);
    if (!line) lines.push(line = { line_id: lines.length + 1, sku, quantity: 0, attributes: {} });
    line.quantity += quantity;
    request.session.save((error) => (error ? next(error) : response.json({ line })));
  });
  app.listen(Number(PORT), '127.0.0.1');
}

if (Number(WORKERS) > 1 && cluster.isPrimary) {
  for (let worker = 0; worker < Number(WORKERS); worker += 1) cluster.fork();
} else {
  serve();
}
