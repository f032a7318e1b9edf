// A call that is left before or after it is there: whether its session stays behind.

import { connected, play, sessions, until } from "./browser.mjs";

await play(async ({ page, given }) => {
  let offered;
  const offer = new Promise((resolve) => (offered = resolve));
  if (given.when !== "connected") {
    await page.route("**/api/offer", (route) => {
      if (given.how === "fail") route.fulfill({ status: 500, json: { error: { code: "bot_failed", message: "No luck." } } });
      offered(route); // and never answered, unless it is to fail
    });
  }
  await page.getByRole("button", { name: "Connect" }).click();
  if (given.when === "connected") await connected(page);
  else await offer;
  const during = await sessions(given.url);

  if (given.how === "reload") await page.reload();
  if (given.how === "disconnect") await page.getByRole("button", { name: "Disconnect" }).click();
  if (given.how === "fail") await page.locator("#trouble").waitFor();
  await until(async () => (await sessions(given.url)).length === 0, "no session left");
  const trouble = page.locator("#trouble");
  return {
    during: during.map((session) => session.state),
    state: await page.locator("#state").innerText(),
    words: (await trouble.isVisible()) ? await trouble.innerText() : "",
    microphones: await page.evaluate(() => window.microphones.flatMap((stream) => stream.getTracks()).map((track) => track.readyState)),
  };
});
