// The server wants a key: a wrong one, then the right one.

import { connected, looks, play } from "./browser.mjs";

const POLLS = 4_500; // the page's polls come every 2 s

await play(async ({ page, given }) => {
  const key = page.getByLabel("API key");

  await key.waitFor();
  const asked = await page.locator("#key-form").innerText();
  const red = await page.locator(".notice:visible").count();
  const sessions = await page.locator("#sessions-card").innerText();
  await page.waitForTimeout(POLLS); // none is made without the key
  const look = await looks(page, given, "key");
  await page.getByRole("button", { name: "Connect" }).click();
  await page.waitForFunction(() => document.activeElement.id === "key");
  await page.keyboard.type("wrong");
  await page.keyboard.press("Enter");
  await page.getByRole("alert").filter({ hasText: "not accept" }).waitFor();
  const refused = await page.getByRole("alert").innerText();
  await key.fill(given.key);
  await page.getByRole("button", { name: "Use key" }).click();
  // The call that was asked for before goes on by itself.
  await connected(page);
  // A public key lists no sessions of others, but the page knows its own.
  await page.locator("#sessions li .own").filter({ hasText: "this call" }).waitFor();
  const listed = await page.locator("#sessions li").count();
  const kept = await page.evaluate(() => ({ ofTab: Object.values(sessionStorage), lasting: localStorage.length, shown: document.body.innerHTML }));
  return { listed, asked, red, sessions, look, refused, kept: kept.ofTab, lasting: kept.lasting, shown: kept.shown.includes(given.key) };
});
