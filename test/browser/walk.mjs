// Walks the pages of an invitation in Chromium, as the administrator of a tenant does. Settings come in the environment.
// Each page is printed as a line of JSON and photographed. Where the other side has to do something first, the line has
// "need", and a line is read from the standard input.
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const { ORIGIN, PORT, LINK, EXPIRED, ADMIN, SERVICE, NOBODY, PASSWORD, OTC, SIZE, SHOTS } = process.env;
const [width, height] = SIZE.split("x").map(Number);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const print = (value) => process.stdout.write(JSON.stringify(value) + "\n");
const need = async (what) => {
	print({ need: what });
	await lines.next();
};

const browser = await chromium.launch({
	executablePath: "/usr/bin/chromium", // the distribution's
	args: ["--no-sandbox", "--disable-background-networking",
		`--host-resolver-rules=MAP ${new URL(ORIGIN).hostname} 127.0.0.1:${PORT}`],
});
const newVisit = async () => {
	const context = await browser.newContext({ viewport: { width, height }, ignoreHTTPSErrors: true });
	const page = await context.newPage();
	page.on("console", (m) => m.type() === "error" && !/status of 4\d\d/.test(m.text()) && print({ complaint: m.text() }));
	return page;
};
let count = 0;
const look = async (page, name) => {
	await page.screenshot({ path: `${SHOTS}/${SIZE}-${String(++count).padStart(2, "0")}-${name}.png`, fullPage: true });
	const seen = await page.evaluate(() => ({
		title: document.querySelector("h1").textContent,
		text: document.body.innerText,
		wide: document.documentElement.scrollWidth > window.innerWidth,
		scripts: document.scripts.length,
		small: [...document.querySelectorAll("button, a.button")].filter((b) => b.getBoundingClientRect().height < 40).length,
	}));
	print({ name, url: page.url(), ...seen });
};

// At Microsoft: sign in and accept, or cancel.
const atMicrosoft = async (page, login, action = "accept") => {
	await page.waitForSelector("input[name=login]");
	await page.fill("input[name=login]", login);
	await page.fill("input[name=passwd]", PASSWORD);
	if (await page.$("input[name=otc]")) await page.fill("input[name=otc]", OTC);
	await page.click(`button[value=${action}]`);
};
const press = (page, text) => page.click(`button:has-text("${text}")`);

let page = await newVisit();
await page.goto(ORIGIN + "/");
await look(page, "no-visit");
await page.goto(EXPIRED);
await look(page, "expired");
await page.goto(LINK);
await look(page, "ask");
await press(page, "Authorise at Microsoft");
await atMicrosoft(page, ADMIN, "cancel");
await look(page, "declined");
await page.click("a.button");
await press(page, "Authorise at Microsoft");
await atMicrosoft(page, ADMIN);
await atMicrosoft(page, ADMIN);
await page.waitForURL(ORIGIN + "/");
await look(page, "wait");
await page.waitForSelector("text=Confirm your organisation", { timeout: 60000 }); // by itself
await look(page, "confirm");
await press(page, "Sign in at Microsoft");
await atMicrosoft(page, ADMIN);
await page.waitForSelector("text=Check before the integration");
await page.click("summary");
await look(page, "readiness");

const other = await newVisit(); // the same link in another browser
await other.goto(LINK);
await look(other, "other-browser");
await other.goto(page.url() + "callback?state=forged&code=x");
await look(other, "forged");

await press(page, "Integrate");
await atMicrosoft(page, NOBODY);
await page.waitForSelector("text=A role is missing");
await look(page, "role-missing");
await page.click("a.button");
await press(page, "Integrate");
await atMicrosoft(page, SERVICE);
await page.waitForSelector("text=Connected");
await look(page, "progress");
await need("done");
await page.waitForSelector("text=Everything is in place", { timeout: 60000 }); // by itself
await look(page, "done");
await need("lost");
await page.reload();
await look(page, "lost");
await press(page, "Integrate");
await atMicrosoft(page, SERVICE);
await page.waitForSelector("text=Everything is in place");
await need("left");
await page.reload();
await look(page, "left");
await browser.close();
process.exit(0); // the standard input is open
