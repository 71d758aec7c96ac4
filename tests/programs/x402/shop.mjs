// What the sellers sell: the method, and what they were sent. A request with x-fail gets that status instead.
import { bodyOf } from "./settings.mjs";

export async function sell(request, response) {
  const sent = await bodyOf(request);
  const failure = Number(request.headers["x-fail"]);
  if (failure) return response.status(failure).json({ error: "the shop is on fire" });
  response.json({ bought: request.method, sent: sent.toString() });
}
