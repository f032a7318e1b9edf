// Another microphone during a call, and in the next one.

import { connected, pitch, play } from "./browser.mjs";

await play(async ({ page }) => {
  const opened = () =>
    page.evaluate(() => window.microphones.map((stream) => stream.getAudioTracks()[0]).map((track) => [track.getSettings().deviceId, track.readyState, track.enabled]));
  const connect = async () => {
    await page.getByRole("button", { name: "Connect", exact: true }).click();
    await connected(page);
  };
  const list = page.getByLabel("Microphone to use");

  await connect();
  const chosen = await list.evaluate((select) => select.options[select.options.length - 1].value);
  await page.evaluate(() => (window.held = true));
  await list.selectOption(chosen);
  await page.locator("#trouble").waitFor();
  const refused = await page.locator("#trouble").innerText();
  await page.waitForFunction((chosen) => document.getElementById("microphone").value !== chosen, chosen);
  const kept = await list.inputValue();
  await page.evaluate(() => (window.held = false));

  await page.getByRole("button", { name: "Mute" }).click();
  await list.selectOption(chosen);
  await page.locator("#trouble").waitFor({ state: "hidden" });
  const sent = await page.evaluate(() => window.peers[0].getSenders()[0].track === window.microphones[1].getAudioTracks()[0]);
  const muted = await opened();
  await page.getByRole("button", { name: "Unmute" }).click();
  const heard = await pitch(page);
  const unmuted = await opened();
  await page.getByRole("button", { name: "Disconnect" }).click();
  await page.reload();
  await connect();
  const [next, shown] = [await opened(), await list.inputValue()];
  await page.evaluate((chosen) => {
    for (const name of Object.keys(localStorage)) if (localStorage[name] === chosen) localStorage[name] = "unplugged";
  }, chosen);
  await page.reload();
  await connect();
  return { refused, kept, sent, chosen, muted, heard, unmuted, next, shown, other: await opened() };
});
