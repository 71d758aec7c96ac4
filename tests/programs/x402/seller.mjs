// A seller of version 2: seller.mjs '{"facilitator", "chain", "token", "name", "version", "price", "patience", "method"}'. `method` is
// how payments move the token, if not by EIP-3009.
import http from "node:http";

import express from "express";

import { HTTPFacilitatorClient } from "@x402/core/server";
import { ExactEvmScheme } from "@x402/evm/exact/server";
import { paymentMiddleware, x402ResourceServer } from "@x402/express";

import { listen, payeeOf, settings } from "./settings.mjs";
import { sell } from "./shop.mjs";

const { facilitator, chain, token, name, version, price, patience, method } = settings;
const network = `eip155:${chain}`;
const client = new HTTPFacilitatorClient({ url: facilitator, timeoutMs: patience });
const server = new x402ResourceServer(client).register(network, new ExactEvmScheme());

function route(more) {
  // Only EIP-3009 needs the name of the token.
  const how = method ? { assetTransferMethod: method } : { name, version };
  const amount = { amount: String(price), asset: token, extra: { ...how, ...more } };
  const payTo = (context) => payeeOf(context.path);
  return { accepts: { scheme: "exact", network, payTo, price: amount, maxTimeoutSeconds: 60 }, description: "words" };
}

const routes = { "/exact/*": route({}), "/upfront/*": route({ paymentFlow: "upfront" }) };
const app = express();
app.use(paymentMiddleware(routes, server));
app.use(sell);
listen(http.createServer(app));
