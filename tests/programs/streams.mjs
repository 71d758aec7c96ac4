// Origins of HTTP/2 alone before a seller: streams.mjs PEM SELLER. Prints the ports of one that keeps its connections and
// of one that ends each of them after a few requests.
//
// A path that begins with /paid is the seller's. ?refuse=N refuses the first stream that asks so, ?head=N gives an answer
// a head of so many KiB. /large is never read to its end.
import fs from "node:fs";
import http from "node:http";
import http2 from "node:http2";

const [pem, seller] = process.argv.slice(2);
const { NGHTTP2_REFUSED_STREAM, NGHTTP2_CANCEL } = http2.constants;
const FEW = 7;
const FIELDS = 20;
const LARGE = 16 << 20;
const refused = new Set();

function answer(stream, headers, head) {
  if (stream.destroyed) return;
  for (let number = 0; number < FIELDS && head; number++) headers[`x-large-${number}`] = "x".repeat((head << 10) / FIELDS);
  stream.respond(headers);
}

function ask(stream, received, head) {
  const headers = Object.fromEntries(Object.entries(received).filter(([name]) => !name.startsWith(":")));
  const request = http.request(seller + received[":path"].split("?")[0], { method: received[":method"], headers });
  request.on("error", () => stream.close(NGHTTP2_CANCEL));
  request.on("response", (response) => {
    const fields = { ":status": response.statusCode, ...response.headers };
    for (const name of ["connection", "keep-alive", "transfer-encoding"]) delete fields[name];
    answer(stream, fields, response.statusCode === 200 ? head : 0);
    response.pipe(stream);
  });
  stream.pipe(request);
}

function serve(most) {
  const settings = { key: fs.readFileSync(pem), cert: fs.readFileSync(pem), maxSendHeaderBlockLength: 1 << 20 };
  const server = http2.createSecureServer(settings);
  const counts = new WeakMap();
  // Clients end connections as they like.
  server.on("sessionError", () => {});
  server.on("stream", (stream, headers) => {
    stream.on("error", () => {});
    const count = (counts.get(stream.session) ?? 0) + 1;
    counts.set(stream.session, count);
    // Not before it is answered: Node now and then loses the stream in whose event a session is closed.
    if (count === most) stream.on("finish", () => stream.session?.close());
    const url = new URL(headers[":path"], "https://localhost");
    const [refusal, head] = [url.searchParams.get("refuse"), Number(url.searchParams.get("head"))];
    // A seller is asked for its price first; what counts is the payment.
    const counted = !url.pathname.startsWith("/paid") || "rdn-balance" in headers;
    if (refusal && counted && !refused.has(refusal)) {
      refused.add(refusal);
      return stream.close(NGHTTP2_REFUSED_STREAM);
    }
    if (url.pathname.startsWith("/paid")) return ask(stream, headers, head);
    if (url.pathname === "/large") {
      answer(stream, { ":status": 200 }, 0);
      // More than Node allows the streams of a connection to hold: it refuses further ones there.
      return stream.end(Buffer.alloc(LARGE));
    }
    let length = 0;
    stream.on("data", (piece) => (length += piece.length));
    stream.on("end", () => {
      answer(stream, { ":status": 200 }, head);
      stream.end(`${headers[":method"]} ${length}\n`);
    });
  });
  return new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(server.address().port)));
}

console.log(await serve(Infinity), await serve(FEW));
