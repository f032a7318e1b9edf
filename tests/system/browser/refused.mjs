// Press Connect where that can not work: what the page says then.

import { play, until } from "./browser.mjs";

await play(async ({ page, given, seen }) => {
  if (given.body !== undefined) {
    await page.getByText("Body for the bot", { exact: true }).click();
    await page.getByLabel("Body for the bot, JSON").fill(given.body);
  }
  await page.getByRole("button", { name: "Connect" }).click();
  await page.locator("#trouble").waitFor();
  if (given.screenshot) await page.screenshot({ path: given.screenshot });
  const words = await page.getByRole("alert").innerText();
  // It can be tried again.
  await page.getByRole("button", { name: "Connect", exact: true }).waitFor();
  await until(() => page.getByRole("button", { name: "Connect", exact: true }).isEnabled(), "Connect");
  return { words, state: await page.locator("#state").innerText(), started: seen.requests.some((asked) => asked.endsWith("/start")) };
});
