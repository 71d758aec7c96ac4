// Prints the median time of a call that the published client pays, in milliseconds: by_fetch.mjs URL CALLS '{"key", "chain"}'.
import { ExactEvmScheme } from "@x402/evm/exact/client";
import { wrapFetchWithPayment, x402Client } from "@x402/fetch";
import { privateKeyToAccount } from "viem/accounts";

import { settings } from "./settings.mjs";

const [url, calls] = process.argv.slice(2);
const client = new x402Client();
client.register(`eip155:${settings.chain}`, new ExactEvmScheme(privateKeyToAccount(settings.key)));
// By default it pays in well-known tokens only.
client.setSpendControls({ allowedAssets: true });
const pay = wrapFetchWithPayment(fetch, client);

// The first calls warm it up.
const [warm, times] = [20, []];
for (let call = 0; call < warm + Number(calls); call++) {
  const began = performance.now();
  const answer = await pay(url);
  await answer.text();
  if (answer.status !== 200) throw new Error(`not paid: ${answer.status}`);
  if (call >= warm) times.push(performance.now() - began);
}
times.sort((one, other) => one - other);
console.log(times[Math.floor(times.length / 2)]);
