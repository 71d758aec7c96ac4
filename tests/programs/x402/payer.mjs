// A payer behind the face of a proxy, to compare with: payer.mjs '{"key", "network", "networkV1", "kept"}'. It pays for what
// it is asked to fetch: as the reference client does, which signs for each request; or, given a file to keep payments in,
// patiently: it presents the same payment for the same request until that is served.
import fs from "node:fs";
import http from "node:http";

import { ExactEvmScheme } from "@x402/evm/exact/client";
import { ExactEvmSchemeV1 } from "@x402/evm/v1";
import { wrapFetchWithPayment, x402Client, x402HTTPClient } from "@x402/fetch";
import { privateKeyToAccount } from "viem/accounts";

import { bodyOf, listen, settings } from "./settings.mjs";

const { key, network, networkV1, kept: file } = settings;
const account = privateKeyToAccount(key);
const client = new x402Client();
client.register(network, new ExactEvmScheme(account)).registerV1(networkV1, new ExactEvmSchemeV1(account));
// By default it pays in well-known tokens only.
client.setSpendControls({ allowedAssets: true });
const http402 = new x402HTTPClient(client);

function ask(url, method, body, headers = {}) {
  return fetch(url, { method, headers, body: body.length ? body : undefined, redirect: "manual" });
}

const kept = new Map(file && fs.existsSync(file) ? JSON.parse(fs.readFileSync(file)) : []);

function keep() {
  fs.writeFileSync(file, JSON.stringify([...kept]));
}

async function patiently(url, method, body) {
  const purchase = `${method} ${url}`;
  let answer;
  if (!kept.has(purchase)) {
    answer = await ask(url, method, body);
    if (answer.status !== 402) return answer;
    const text = await answer.text();
    const offer = http402.getPaymentRequiredResponse((name) => answer.headers.get(name), text ? JSON.parse(text) : undefined);
    kept.set(purchase, http402.encodePaymentSignatureHeader(await client.createPaymentPayload(offer)));
    keep();
  }
  answer = await ask(url, method, body, kept.get(purchase));
  // Once more at once: it may not have been settled.
  if (answer.status === 402) answer = await ask(url, method, body, kept.get(purchase));
  if (answer.status === 200 && kept.delete(purchase)) keep();
  return answer;
}

const referencePay = wrapFetchWithPayment((request) => fetch(request, { redirect: "manual" }), client);
const byReference = (url, method, body) => referencePay(url, { method, body: body.length ? body : undefined });
const pay = file ? patiently : byReference;

listen(
  http.createServer(async (request, response) => {
    try {
      const answer = await pay(request.url, request.method, await bodyOf(request));
      response.writeHead(answer.status).end(await answer.text());
    } catch (error) {
      response.writeHead(599).end(String(error));
    }
  }),
);
