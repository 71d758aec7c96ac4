// What the programs beside this file share: their settings, which are the JSON in their last argument, and how they listen.
export const settings = JSON.parse(process.argv.at(-1));

// Listens on loopback, and prints the address as one line.
export function listen(server, announce = (url) => console.log(url)) {
  server.listen(0, "127.0.0.1", () => announce(`http://127.0.0.1:${server.address().port}`));
}

export async function bodyOf(message) {
  const pieces = [];
  for await (const piece of message) pieces.push(piece);
  return Buffer.concat(pieces);
}

// A path is /FLOW/PAYEE/FAULT/TIMES: each purchase pays an address of its own, and so the chain tells what it moved.
export function payeeOf(path) {
  return path.split("/")[2];
}
