// Faults between sellers and their facilitators, and between a payer and the sellers:
// faults.mjs '{"rpc", "facilitator", "impatient", "hang"}'. Prints the address for sellers to use as their facilitator; then
// reads one line, {"name": "http://seller", …}, and prints an address before each of them.
//
// The path of a purchase, /FLOW/PAYEE/FAULT/TIMES, names its fault and how many times it strikes. GET /seen at the
// facilitator's address tells, by payee, how often which payment was presented.
import http from "node:http";
import readline from "node:readline";

import { bodyOf, listen, settings } from "./settings.mjs";

const { rpc, facilitator, impatient, hang } = settings;
const CUT = null;
const LATE = 1000;
const JSON_TYPE = { "content-type": "application/json" };
const HTML = { headers: { "content-type": "text/html" }, body: "<html><body>Please stand by.</body></html>" };

// `ask` passes the request on and gives the answer; each says what the other side gets instead.
const AT_VERIFY = {
  "verify-500": () => ({ status: 500, headers: JSON_TYPE, body: '{"error":"no node can be reached"}' }),
  "verify-hang": stall,
};
const AT_SETTLE = {
  "settle-500-unsettled": () => ({ status: 500, headers: JSON_TYPE, body: '{"error":"no node can be reached"}' }),
  "settle-cut-unsettled": () => CUT,
  "settle-504": async (ask) => {
    await ask();
    return { status: 504, headers: JSON_TYPE, body: '{"error":"gateway timeout"}' };
  },
  "settle-cut": async (ask) => {
    await ask();
    return CUT;
  },
  "settle-garbage": async (ask) => {
    await ask();
    return { status: 200, ...HTML };
  },
  "settle-hang": async (ask) => {
    await ask();
    return stall();
  },
  "settle-denied": async (ask) => {
    const denial = { success: false, errorReason: "unexpected_settle_error", transaction: "" };
    return edited(await ask(), denial);
  },
  "wrong-receipt": async (ask) => {
    const other = { transaction: `0x${"ab".repeat(32)}`, payer: `0x${"cd".repeat(20)}`, network: "eip155:1", amount: "1" };
    return edited(await ask(), other);
  },
};
const AT_SELLER = {
  // Blocks are mined on demand only, and the facilitator gives up waiting.
  pending: (ask) => ask(),
  "pending-mined": async (ask) => {
    const answer = await ask();
    await mine();
    return answer;
  },
  // The one who asked is gone by then.
  late: async (ask) => {
    const answer = await ask();
    await new Promise((resolve) => setTimeout(resolve, LATE));
    return answer;
  },
  "resource-500": (ask) => ask({ "x-fail": "500" }),
  "upfront-500": (ask) => ask({ "x-fail": "500" }),
  429: () => ({ status: 429, headers: { "retry-after": "1" }, body: "slow down" }),
  503: () => ({ status: 503, headers: {}, body: "try later" }),
  redirect: (_ask, request) => ({ status: 307, headers: { location: `${request.url}?moved` }, body: "" }),
  "redirect-settled": async (ask, request) => {
    await ask();
    return { status: 302, headers: { location: `${request.url}?moved` }, body: "" };
  },
  "cut-unsettled": () => CUT,
  "cut-settled": async (ask) => {
    await ask();
    return CUT;
  },
  "502-settled": async (ask) => {
    await ask();
    return { status: 502, headers: {}, body: "bad gateway" };
  },
  "html-settled": async (ask) => {
    await ask();
    return { status: 402, ...HTML };
  },
  "empty-402": () => ({ status: 402, headers: JSON_TYPE, body: "{}" }),
  "empty-402-settled": async (ask) => {
    await ask();
    return { status: 402, headers: JSON_TYPE, body: "{}" };
  },
  // As if the payment had been lost on the way.
  "offer-settled": async (ask) => {
    await ask();
    return ask({ "payment-signature": undefined, "x-payment": undefined });
  },
  // The payer is killed meanwhile.
  crash: stall,
  "crash-settled": async (ask) => {
    await ask();
    return stall();
  },
  // What delivered it twice hands on the answer to the one that came second.
  duplicate: async (ask) => {
    const answers = await Promise.all([ask(), ask()]);
    return answers.find(({ status }) => status !== 200) ?? answers[1];
  },
};

const purchases = new Map();

function purchaseOf(payee) {
  return purchases.get(payee.toLowerCase());
}

function enter(path) {
  const [, , payee, fault, times] = path.split("?")[0].split("/");
  const purchase = purchaseOf(payee) ?? { fault, left: Number(times), presented: {} };
  purchases.set(payee.toLowerCase(), purchase);
  return purchase;
}

function strikes(purchase, faults) {
  if (!purchase || !(purchase.fault in faults)) return undefined;
  purchase.isStriking = purchase.left > 0;
  if (!purchase.isStriking) return undefined;
  purchase.left--;
  return faults[purchase.fault];
}

async function asSeller(request, target) {
  const body = await bodyOf(request);
  const purchase = enter(request.url);
  const ask = (headers) => pass(request, body, target, headers);
  const payment = request.headers["payment-signature"] ?? request.headers["x-payment"];
  if (!payment) return ask();
  purchase.presented[payment] = (purchase.presented[payment] ?? 0) + 1;
  const fault = strikes(purchase, AT_SELLER);
  return fault ? fault(ask, request) : ask();
}

async function asFacilitator(request) {
  if (request.url === "/seen") return { status: 200, headers: JSON_TYPE, body: JSON.stringify(seen()) };
  const body = await bodyOf(request);
  if (request.url === "/supported") return pass(request, body, facilitator);
  const purchase = purchaseOf(JSON.parse(body).paymentRequirements.payTo);
  const isPending = purchase?.fault.startsWith("pending");
  const ask = () => pass(request, body, isPending ? impatient : facilitator);
  const isSettlement = request.url === "/settle";
  const fault = strikes(purchase, isSettlement ? AT_SETTLE : AT_VERIFY);
  if (fault) return fault(ask, request);
  const answer = ask();
  // The payment was presented again, and is mined while the facilitator waits.
  if (isPending && isSettlement && !purchase.isStriking) await mine();
  return answer;
}

function seen() {
  return Object.fromEntries([...purchases].map(([payee, { presented }]) => [payee, Object.values(presented)]));
}

function edited(answer, changes) {
  return { ...answer, body: JSON.stringify({ ...JSON.parse(answer.body), ...changes }) };
}

async function stall() {
  await new Promise((resolve) => setTimeout(resolve, hang));
  return CUT;
}

async function mine() {
  const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "evm_mine", params: [] });
  await fetch(rpc, { method: "POST", headers: JSON_TYPE, body });
}

const agent = new http.Agent({ keepAlive: true });

// Passes a request on, with some headers set or, if undefined, removed.
async function pass(request, body, target, changes = {}) {
  const headers = { ...request.headers, ...changes };
  for (const name of ["connection", "transfer-encoding", "content-length"]) delete headers[name];
  for (const name in changes) if (changes[name] === undefined) delete headers[name];
  if (body.length > 0) headers["content-length"] = body.length;
  const answer = await new Promise((resolve, reject) => {
    const options = { method: request.method, headers, agent };
    http.request(target + request.url, options, resolve).on("error", reject).end(body);
  });
  return { status: answer.statusCode, headers: answer.headers, body: await bodyOf(answer) };
}

function face(answerTo) {
  return http.createServer(async (request, response) => {
    const answer = await answerTo(request).catch((error) => ({ status: 502, headers: {}, body: String(error) }));
    if (answer === CUT) return request.socket.destroy();
    const headers = { ...answer.headers, "content-length": Buffer.byteLength(answer.body) };
    for (const name of ["connection", "keep-alive", "transfer-encoding"]) delete headers[name];
    response.writeHead(answer.status, headers).end(answer.body);
  });
}

listen(face(asFacilitator));
for await (const line of readline.createInterface({ input: process.stdin })) {
  const fronts = await Promise.all(
    Object.entries(JSON.parse(line)).map(async ([name, target]) => {
      const url = await new Promise((announce) => listen(face((request) => asSeller(request, target)), announce));
      return [name, url];
    }),
  );
  console.log(JSON.stringify(Object.fromEntries(fronts)));
}
