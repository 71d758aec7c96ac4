// A facilitator that settles nothing, at once, for measurements: instant.mjs '{"chain"}'. Whatever is presented is valid.
import http from "node:http";

import { bodyOf, listen, settings } from "./settings.mjs";

const network = `eip155:${settings.chain}`;
const supported = { kinds: [{ x402Version: 2, scheme: "exact", network }], extensions: [], signers: {} };
const transaction = `0x${"33".repeat(32)}`;

listen(
  http.createServer(async (request, response) => {
    let said = supported;
    if (request.url !== "/supported") {
      const { paymentPayload } = JSON.parse(await bodyOf(request));
      const payer = paymentPayload.payload.authorization.from;
      said = request.url === "/verify" ? { isValid: true, payer } : { success: true, transaction, network, payer };
    }
    response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(said));
  }),
);
