// The page before a call, and whether anything in it moves when the call's figures come.

import { connected, looks, play, until } from "./browser.mjs";

await play(async ({ page, given }) => {
  const places = () => page.locator(".figures dt").evaluateAll((titles) => titles.map((title) => title.getBoundingClientRect().x));
  await page.locator("#ways-card").waitFor();
  const ways = await page.locator("#ways").innerText();
  const look = await looks(page, given, "idle");
  const listed = await page.locator("#features li").first().isVisible();
  await page.getByText("All features").click();
  const features = await page.locator("#features").innerText();
  const unfolded = await looks(page, given, "features");
  const before = await places();
  await page.getByRole("button", { name: "Connect" }).click();
  await connected(page);
  await until(async () => (await page.locator("#round-trip").innerText()).endsWith("ms"), "figures");
  const during = await places();
  await page.getByLabel("Text for the bot").fill("Hello");
  await page.keyboard.press("Enter");
  await page.locator("#transcript .line.bot").first().waitFor();
  await page.locator("#transcript-scroll").scrollIntoViewIfNeeded();
  const talking = await looks(page, given, "talking");
  return { ways, listed, features, looks: [look, unfolded, talking], before, during };
});
