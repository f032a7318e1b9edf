// pipecat's JavaScript client on a page of another origin: connect, hear, read, disconnect.

import { createServer } from "node:http";

import { build } from "esbuild";

import { pitch, play, sessions, SPEAKER, until } from "./browser.mjs";

const here = (file) => new URL(file, import.meta.url).pathname;

async function bundle() {
  const { outputFiles } = await build({
    entryPoints: [here("client-page.mjs")],
    alias: { "@daily-co/daily-js": here("daily-stand-in.mjs") },
    bundle: true,
    write: false,
    format: "iife",
    logLevel: "error",
  });
  return outputFiles[0].text;
}

function serve(script) {
  const server = createServer((request, response) => {
    const isScript = request.url === "/page.js";
    response.setHeader("content-type", isScript ? "text/javascript" : "text/html");
    response.end(isScript ? script : '<!doctype html><link rel="icon" href="data:,"><script src="/page.js"></script>');
  });
  return new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(server)));
}

await play(async ({ page, given }) => {
  const server = await serve(await bundle());
  try {
    const origin = `http://127.0.0.1:${server.address().port}`;
    const headers = given.key ? { Authorization: `Bearer ${given.manager}` } : {};
    const event = (name) => page.evaluate((name) => window.events.find((event) => event.name === name)?.data, name);

    await page.addInitScript({ content: SPEAKER });
    await page.goto(origin);
    await page.evaluate((asked) => window.begin(asked), { ...given, endpoint: `${given.gateway}/start` });
    const heard = await pitch(page);
    const ready = await until(() => event("bot-ready"), "bot-ready");
    const transcript = await until(() => event("user-transcript"), "a transcript");
    const during = await sessions(given.gateway, headers);
    await page.evaluate(() => window.client.disconnect());
    await until(async () => (await sessions(given.gateway, headers)).length === 0, "no session left");
    return { origin, heard, ready, transcript, during, errors: await page.evaluate(() => window.events.filter((e) => e.name === "error")) };
  } finally {
    server.closeAllConnections();
    server.close();
  }
});
