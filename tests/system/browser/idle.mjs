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
  const lines = await page.evaluate(async () => {
    const { Transcript } = await import("/page/lists.js");
    const { Conversation } = await import("/page/rtvi.js");
    const [list, scroll, empty] = ["ol", "div", "p"].map((tag) => document.createElement(tag));
    const transcript = new Transcript(list, scroll, empty);
    const conversation = new Conversation();
    const told = [];
    for (const [said, left] of [["", " One two."], [" One", " two."], [" One two.", ""]]) {
      const progress = { accumulated_text: said, remaining_text: left };
      const status = left ? "in-progress" : "completed";
      const data = { text: " One two.", segment_id: 1, spoken_status: status, spoken_progress: progress };
      transcript.show(conversation.read({ type: "bot-output", data }));
      told.push([".note", ".text", ".rest"].map((part) => list.querySelector(part).textContent));
    }
    return told;
  });
  const talking = await looks(page, given, "talking");
  return { ways, listed, features, looks: [look, unfolded, talking], lines, before, during };
});
