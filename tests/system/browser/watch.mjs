// Call a bot that has its own mind, until it ends the call: everything that the page shows of it.

import { looks, play } from "./browser.mjs";

await play(async ({ page, given }) => {
  if (given.body !== undefined) {
    await page.getByText("Body for the bot", { exact: true }).click();
    await page.getByLabel("Body for the bot, JSON").fill(given.body);
  }
  await page.getByRole("button", { name: "Connect" }).click();
  // Not for the button to say Disconnect: a bot may have returned before that is seen.
  await page.locator("#call[data-outcome]:not([data-outcome=''])").waitFor();
  await page.getByRole("button", { name: "Connect", exact: true }).waitFor();
  const look = await looks(page, given, "watch");
  const shown = (list) => page.locator(list).allInnerTexts();
  return {
    look,
    state: await page.locator("#state").innerText(),
    words: (await page.locator("#trouble").isVisible()) ? await page.locator("#trouble").innerText() : "",
    lines: await shown("#transcript .line p"),
    events: await shown("#events summary"),
    hacked: await page.evaluate(() => window.hacked ?? false),
    images: await page.locator("img").count(),
  };
});
