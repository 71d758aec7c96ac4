// Fetches a URL with Node, and prints the body: ask.mjs undici|fetch|env URL
// `undici` and `fetch` take the proxy of the environment by undici's agent; `env` leaves it to NODE_USE_ENV_PROXY.
const [how, url] = process.argv.slice(2);

let ask = fetch;
if (how !== "env") {
  const { EnvHttpProxyAgent, request, setGlobalDispatcher } = await import("undici");
  setGlobalDispatcher(new EnvHttpProxyAgent());
  if (how === "undici") {
    ask = async (url) => {
      const { statusCode, body } = await request(url);
      return { status: statusCode, text: () => body.text() };
    };
  }
}
const answer = await ask(url);
if (answer.status !== 200) {
  console.error(`${answer.status} ${await answer.text()}`);
  process.exit(1);
}
process.stdout.write(await answer.text());
