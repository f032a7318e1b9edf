// No way to the bot from the start, or no longer: what the page says.

import { connected, play } from "./browser.mjs";

const withoutCandidates = (description) => ({ ...description, sdp: description.sdp.replace(/a=candidate:.*\r\n/g, "") });

await play(async ({ page, given }) => {
  if (given.how === "blocked") {
    await page.clock.install();
    await page.route("**/api/offer", async (route) => {
      if (route.request().method() === "PATCH") return route.fulfill({ json: {} });
      const response = await route.fetch({ postData: withoutCandidates(route.request().postDataJSON()) });
      return route.fulfill({ response, json: withoutCandidates(await response.json()) });
    });
    await page.reload();
  }
  await page.getByRole("button", { name: "Connect" }).click();
  if (given.how === "blocked") {
    await page.getByText("Connecting…").waitFor();
    await page.waitForResponse("**/api/offer");
    await page.clock.fastForward(60_000);
  } else {
    await connected(page);
    process.kill(given.pid, "SIGKILL");
    await page.getByText("The network is interrupted").waitFor();
  }
  await page.locator("#trouble").waitFor({ timeout: 60_000 });
  return { words: await page.locator("#trouble").innerText(), state: await page.locator("#state").innerText() };
});
