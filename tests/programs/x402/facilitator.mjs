// The published facilitator: facilitator.mjs '{"rpc", "chain", "key", "patience"}'. It waits `patience` ms for a receipt.
import http from "node:http";

import { x402Facilitator } from "@x402/core/facilitator";
import { toFacilitatorEvmSigner } from "@x402/evm";
import { registerExactEvmScheme } from "@x402/evm/exact/facilitator";
import { createWalletClient, defineChain, http as transport, publicActions } from "viem";
import { privateKeyToAccount } from "viem/accounts";

import { bodyOf, listen, settings } from "./settings.mjs";

const { rpc, chain: id, key, patience } = settings;
const nativeCurrency = { name: "Ether", symbol: "ETH", decimals: 18 };
const chain = defineChain({ id, name: "local", nativeCurrency, rpcUrls: { default: { http: [rpc] } } });
const account = privateKeyToAccount(key);
const client = createWalletClient({ account, chain, transport: transport(rpc), pollingInterval: 50 }).extend(publicActions);

// It asks Multicall3 why a payment would fail. A local chain lacks that contract, but viem carries its code.
const { multicall3Bytecode } = await import(new URL("./constants/contracts.js", import.meta.resolve("viem")));
const { data: code } = await client.call({ data: multicall3Bytecode });
await client.request({ method: "anvil_setCode", params: ["0xcA11bde05977b3631167028862bE2a173976CA11", code] });

const facilitator = new x402Facilitator();
// One transaction at a time: two would take the same nonce.
let sent = Promise.resolve();
const writeContract = (call) => (sent = sent.catch(() => {}).then(() => client.writeContract(call)));
const wallet = { ...client, address: account.address, writeContract };
const signer = toFacilitatorEvmSigner(wallet, { confirmationTimeoutMs: patience });
// It adds the words of version 1 itself.
registerExactEvmScheme(facilitator, { signer, networks: `eip155:${id}` });

async function answer(request) {
  if (request.url === "/supported") return facilitator.getSupported();
  const { paymentPayload, paymentRequirements } = JSON.parse(await bodyOf(request));
  const act = request.url === "/verify" ? "verify" : "settle";
  return facilitator[act](paymentPayload, paymentRequirements);
}

listen(
  http.createServer(async (request, response) => {
    let [status, said] = [200, undefined];
    try {
      said = await answer(request);
    } catch (error) {
      [status, said] = [500, { error: String(error) }];
    }
    response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(said));
  }),
);
