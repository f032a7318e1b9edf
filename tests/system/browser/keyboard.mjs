// Without a mouse: connect, mute, disconnect.

import { connected, play } from "./browser.mjs";

await play(async ({ page }) => {
  const focused = () =>
    page.evaluate(() => ({
      name: document.activeElement.textContent.trim(),
      ring: getComputedStyle(document.activeElement).outlineStyle,
    }));

  const passed = [];
  while ((await focused()).name !== "Connect" && passed.length < 10) {
    await page.keyboard.press("Tab");
    passed.push(await focused());
  }
  await page.keyboard.press("Enter");
  await connected(page);
  const live = await focused();
  await page.keyboard.press("Tab");
  await page.keyboard.press("Space");
  const muted = [await focused(), await page.evaluate(() => window.microphones.flatMap((stream) => stream.getTracks()).map((track) => track.enabled))];
  await page.keyboard.press("Shift+Tab");
  await page.keyboard.press("Enter");
  await page.getByRole("status").filter({ hasText: "Not connected" }).waitFor();
  const released = await page.evaluate(() => window.microphones.flatMap((stream) => stream.getTracks()).map((track) => track.readyState));
  return { passed, live, muted, released, after: await focused() };
});
