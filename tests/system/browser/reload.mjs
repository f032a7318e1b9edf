// The code changes after the page has started its session, and before it has sent its offer.

import { writeFileSync } from "node:fs";

import { connected, play, sessions, until } from "./browser.mjs";

await play(async ({ page, given, seen }) => {
  await page.route(
    "**/api/offer",
    async (route) => {
      writeFileSync(given.file, given.changed);
      await until(async () => (await sessions(given.url)).length === 0, "the session's end");
      await route.continue();
    },
    { times: 1 },
  );
  await page.getByRole("button", { name: "Connect" }).click();
  await connected(page);
  const starts = seen.requests.filter((request) => request.startsWith("POST") && request.endsWith("/start")).length;
  return { starts, boxes: await page.locator(".notice:visible").count() };
});
