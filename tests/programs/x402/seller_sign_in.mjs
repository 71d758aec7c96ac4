// A seller of version 2 that remembers its customers, if they sign in: settings as for seller.mjs.
import http from "node:http";

import express from "express";

import { HTTPFacilitatorClient } from "@x402/core/server";
import { ExactEvmScheme } from "@x402/evm/exact/server";
import { paymentMiddleware, x402ResourceServer } from "@x402/express";
import {
  createSIWxResourceServerExtension,
  declareSIWxExtension,
  InMemorySIWxStorage,
} from "@x402/extensions/sign-in-with-x";

import { listen, payeeOf, settings } from "./settings.mjs";
import { sell } from "./shop.mjs";

const { facilitator, chain, token, name, version, price, patience } = settings;
const network = `eip155:${chain}`;

// What is signed names the origin, which is known only once the seller listens.
const shop = http.createServer();
listen(shop, (origin) => {
  const client = new HTTPFacilitatorClient({ url: facilitator, timeoutMs: patience });
  const remembers = createSIWxResourceServerExtension({ origin, storage: new InMemorySIWxStorage() });
  const server = new x402ResourceServer(client).register(network, new ExactEvmScheme()).registerExtension(remembers);
  const amount = { amount: String(price), asset: token, extra: { name, version } };
  const payTo = (context) => payeeOf(context.path);
  const accepts = { scheme: "exact", network, payTo, price: amount, maxTimeoutSeconds: 60 };
  const extensions = declareSIWxExtension({ statement: "Show what you bought." });
  const app = express();
  app.use(paymentMiddleware({ "/exact/*": { accepts, description: "words", extensions } }, server));
  app.use(sell);
  shop.on("request", app);
  console.log(origin);
});
