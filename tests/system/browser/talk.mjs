// A whole call with the page: connect, hear, read, look, and stop the session from the list.

import { connected, pitch, play, until } from "./browser.mjs";

await play(async ({ page, given }) => {
  const value = (id) => page.locator(id).innerText();
  const level = async (id) => Number(await page.locator(id).getAttribute("aria-valuenow"));

  await page.getByRole("button", { name: "Connect" }).click();
  await connected(page);
  const heard = await pitch(page);
  await page.locator("#transcript .line").first().waitFor();
  const meters = [
    await until(() => level("#in"), "a level of the microphone"),
    await until(() => level("#out"), "a level of the bot"),
  ];
  const roundTrip = await until(async () => (await value("#round-trip")).match(/^[\d.]+ ms$/), "a round trip");

  await page.getByLabel("Text for the bot").fill(given.say);
  await page.keyboard.press("Enter");
  await page.locator("#transcript .line.bot", { hasText: given.say }).waitFor();
  const event = page.locator("#events summary", { hasText: "bot-ready" });
  await event.waitFor();
  await page.locator("#sessions li").waitFor();
  if (given.screenshot) {
    await until(async () => (await page.locator("#transcript .line").count()) >= 3, "a few lines");
    await page.evaluate(() => document.activeElement.blur());
    await page.mouse.move(0, 0);
    await page.screenshot({ path: given.screenshot });
  }
  await event.click();
  const json = JSON.parse(await page.locator("#events pre").innerText());

  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  const session = await value("#sessions li");
  const lines = await page.locator("#transcript .line").allInnerTexts();

  await page.getByRole("button", { name: /^Stop session/ }).click();
  await page.getByRole("button", { name: "Connect", exact: true }).waitFor();
  await page.locator("#sessions-empty").waitFor();
  return {
    heard,
    lines,
    meters,
    roundTrip: roundTrip[0],
    json,
    session,
    overflow,
    state: await value("#state"),
    trouble: await page.locator("#trouble").isVisible(),
  };
});
