// A seller of version 2: seller.mjs '{"facilitator", "chain", "token", "name", "version", "price", "patience"}'.
import http from "node:http";

import express from "express";

import { HTTPFacilitatorClient } from "@x402/core/server";
import { ExactEvmScheme } from "@x402/evm/exact/server";
import { paymentMiddleware, x402ResourceServer } from "@x402/express";

import { listen, payeeOf, settings } from "./settings.mjs";
import { sell } from "./shop.mjs";

const { facilitator, chain, token, name, version, price, patience } = settings;
const network = `eip155:${chain}`;
const client = new HTTPFacilitatorClient({ url: facilitator, timeoutMs: patience });
const server = new x402ResourceServer(client).register(network, new ExactEvmScheme());

function route(more) {
  const amount = { amount: String(price), asset: token, extra: { name, version, ...more } };
  const payTo = (context) => payeeOf(context.path);
  return { accepts: { scheme: "exact", network, payTo, price: amount, maxTimeoutSeconds: 60 }, description: "words" };
}

const routes = { "/exact/*": route({}), "/upfront/*": route({ paymentFlow: "upfront" }) };
const app = express();
app.use(paymentMiddleware(routes, server));
app.use(sell);
listen(http.createServer(app));
