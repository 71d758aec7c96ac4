// A seller of version 1: seller_v1.mjs '{"facilitator", "network", "token", "name", "version", "price"}'.
import http from "node:http";

import express from "express";
import { paymentMiddleware } from "x402-express";

import { listen, payeeOf, settings } from "./settings.mjs";
import { sell } from "./shop.mjs";

const { facilitator, network, token, name, version, price } = settings;
const asset = { address: token, decimals: 6, eip712: { name, version } };
const route = { price: { amount: String(price), asset }, network, config: { description: "words", maxTimeoutSeconds: 60 } };

// Version 1 knows one payee for all.
const payees = new Map();
function middleware(payee) {
  if (!payees.has(payee)) payees.set(payee, paymentMiddleware(payee, { "/exact/*": route }, { url: facilitator }));
  return payees.get(payee);
}

const app = express();
app.use((request, response, next) => middleware(payeeOf(request.path))(request, response, next));
app.use(sell);
listen(http.createServer(app));
