// The server's pages for people in a real browser: every way through them, wide and narrow, light and dark.
// With AGENTLENS_TEST_SHOTS=FOLDER each page leaves a picture there.
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { after, before, test } from "node:test";

import { chromium } from "playwright-core";

import { Server } from "./server.mjs";

const PASSWORD = "violet-harbor-9-kites";
const NEW_PASSWORD = "orange-lantern-4-boats";
const server = new Server();
const faults = [];
let browser;

before(async () => {
  await server.start();
  browser = await chromium.launch({
    executablePath: process.env.AGENTLENS_TEST_BROWSER,
    // Without these, a browser of a closed network keeps asking for its maker's hosts.
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
});

after(async () => {
  await browser?.close();
  await server.stop();
});

/** A browser that no one has used: its page. What it asks of others, and what its pages do wrong, are faults. */
async function visit(path, { scheme = "light", width = 1200 } = {}) {
  const context = await browser.newContext({ colorScheme: scheme, viewport: { width, height: 800 } });
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
  page.on("pageerror", (error) => faults.push(String(error)));
  page.on("console", (message) => {
    // A refusal is an answer, not a fault.
    if (message.type() === "error" && !/status of 4\d\d/.test(message.text())) faults.push(message.text());
  });
  page.on("request", (request) => {
    const url = request.url();
    if (!url.startsWith(server.origin) && !url.startsWith("data:")) faults.push(`asked for ${url}`);
    if (url.includes("al_")) faults.push(`a token in ${url}`);
  });
  await page.goto(path.startsWith("http") ? path : server.origin + path);
  return page;
}

/** Waits for a view, which must fit the window. */
async function shows(page, view) {
  await page.waitForSelector(`#${view}:visible`);
  const fits = await page.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth);
  assert.ok(fits, `#${view} is wider than the window`);
  if (process.env.AGENTLENS_TEST_SHOTS) {
    const scheme = (await page.evaluate(() => matchMedia("(prefers-color-scheme: dark)").matches)) ? "dark" : "light";
    const name = `${view}-${page.viewportSize().width}-${scheme}.png`;
    await page.screenshot({ path: `${process.env.AGENTLENS_TEST_SHOTS}/${name}` });
  }
  return page.innerText(`#${view}`);
}

/** Fills a view's form and sends it. */
async function send(page, view, fields, { accept = false } = {}) {
  for (const [name, value] of Object.entries(fields)) await page.fill(`#${view}-${name}`, value);
  if (accept) await page.check(`#${view} [name=terms_version]`);
  await page.click(`#${view} form button`);
}

const focus = (page) => page.evaluate(() => document.activeElement.id);
const cookies = async (page) => (await page.context().cookies()).map((cookie) => cookie.name);
const api = (page, method, path, body) =>
  page.evaluate(
    async ([method, path, body]) => {
      const headers = { "content-type": "application/json" };
      const answer = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
      return answer.json();
    },
    [method, path, body],
  );

/** The code that an app shows. */
function code(secret) {
  const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
  const bits = [...secret].map((letter) => letters.indexOf(letter).toString(2).padStart(5, "0")).join("");
  const key = Buffer.from(bits.match(/.{8}/g).map((byte) => parseInt(byte, 2)));
  const step = Buffer.alloc(8);
  step.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30_000)));
  const digest = createHmac("sha1", key).update(step).digest();
  const number = (digest.readUInt32BE(digest.at(-1) & 15) & 0x7fffffff) % 1_000_000;
  return String(number).padStart(6, "0");
}

test("a stranger signs up, proves the address and signs out", async () => {
  const page = await visit("/login");
  await shows(page, "sign-in");
  assert.equal(await focus(page), "sign-in-email");
  // What is wrong with a field is said at the field; what is wrong with the whole, above the form.
  await send(page, "sign-in", {});
  assert.equal(await page.getAttribute("#sign-in-email", "aria-invalid"), "true");
  assert.match(await page.getAttribute("#sign-in-email", "aria-describedby"), /sign-in-email-error/);
  await send(page, "sign-in", { email: "ann@example.com", password: "wrong" });
  assert.match(await shows(page, "alert"), /The address or the password is wrong\./);
  assert.equal(await focus(page), "alert");
  await page.click("[data-show=sign-up]");
  await shows(page, "sign-up");
  await send(page, "sign-up", { email: "ann@example.com", name: "Ann", password: "password1" }, { accept: true });
  assert.match(await page.innerText("#sign-up-password-error"), /easy to guess/);
  await send(page, "sign-up", { password: PASSWORD });
  assert.match(await shows(page, "notice"), /has no mail server: the link is in its log/);

  const link = await server.link("verify");
  const phone = await visit(link, { scheme: "dark", width: 360 });
  await shows(phone, "verify");
  assert.equal(phone.url(), `${server.origin}/verify`);
  assert.equal(await phone.evaluate(() => history.length), 2, "the link with its token is in the history");
  await send(phone, "verify", { password: "not the one" });
  assert.match(await shows(phone, "alert"), /not the password that was chosen/);
  await send(phone, "verify", { password: PASSWORD });
  assert.match(await shows(phone, "signed-in"), /ann@example\.com/);
  await phone.goto(`${server.origin}/login`);
  await shows(phone, "signed-in");
  await phone.click("#signed-in button");
  await shows(phone, "sign-in");
  assert.ok(!(await cookies(phone)).includes("al_session"));
  await phone.goto(link);
  await send(phone, "verify", { password: PASSWORD });
  assert.match(await shows(phone, "alert"), /This link doesn't work/);
});

test("a forgotten password is set anew by mail", async () => {
  server.stranger("cleo@example.com");
  const page = await visit("/login");
  await shows(page, "sign-in");
  await page.click("[data-show=forgotten]");
  await shows(page, "forgotten");
  await send(page, "forgotten", { email: "cleo@example.com" });
  await shows(page, "notice");
  const dark = await visit(await server.link("reset"), { scheme: "dark" });
  await shows(dark, "reset");
  assert.equal(dark.url(), `${server.origin}/reset`);
  await send(dark, "reset", { password: "short" });
  assert.match(await dark.innerText("#reset-password-error"), /must have at least 8/);
  await send(dark, "reset", { password: NEW_PASSWORD });
  await shows(dark, "notice");
  await dark.click("#notice-next a");
  await send(dark, "sign-in", { email: "cleo@example.com", password: NEW_PASSWORD });
  await shows(dark, "signed-in");
  // Without its token the page says what to do.
  await dark.goto(`${server.origin}/reset`);
  assert.match(await shows(dark, "notice"), /Open it once more from your mail/);
});

test("invitations are accepted by people with an account and without", async () => {
  const password = server.owner("owner@example.com");
  const owner = await visit("/login");
  await send(owner, "sign-in", { email: "owner@example.com", password });
  assert.match(await shows(owner, "signed-in"), /Default: owner/);
  const invite = (email) => api(owner, "POST", "/v1/invitations", { email, role: "viewer" });
  await invite("bob@example.com");
  const first = await server.link("invite");
  const bob = await visit(first, { width: 360 });
  assert.match(await shows(bob, "join"), /is invited to Default as viewer/);
  assert.equal(bob.url(), `${server.origin}/invite`);
  await send(bob, "join", { name: "Bob", password: PASSWORD }, { accept: true });
  assert.match(await shows(bob, "signed-in"), /Default: viewer/);

  const dorasPassword = server.stranger("dora@example.com");
  await invite("dora@example.com");
  const second = await server.link("invite", first);
  const dora = await visit(second, { scheme: "dark", width: 360 });
  await shows(dora, "join");
  await send(dora, "join", { name: "Dora", password: PASSWORD }, { accept: true });
  assert.match(await shows(dora, "alert"), /This address has an account/);
  await send(dora, "sign-in", { email: "dora@example.com", password: dorasPassword });
  assert.match(await shows(dora, "accept"), /signed in as dora@example\.com/);
  await dora.click("#accept form button");
  assert.match(await shows(dora, "signed-in"), /Default: viewer/);
  const late = await visit(second);
  assert.match(await shows(late, "notice"), /used, revoked or replaced/);

  // With a second factor, the page asks for its code.
  const { secret } = await api(dora, "POST", "/v1/me/totp");
  const { recovery_codes } = await api(dora, "POST", "/v1/me/totp/confirm", { code: code(secret) });
  const other = await visit("/login", { width: 360 });
  await send(other, "sign-in", { email: "dora@example.com", password: dorasPassword });
  await shows(other, "code");
  await send(other, "code", { code: "000000" });
  assert.match(await shows(other, "alert"), /The code is wrong/);
  await send(other, "code", { code: recovery_codes[0] });
  await shows(other, "signed-in");
});

test("a page at another address leads to the public one, with its token", async () => {
  const elsewhere = server.origin.replace("127.0.0.1", "localhost");
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(`${elsewhere}/reset#al_reset_x`);
  assert.match(await shows(page, "notice"), /public address/);
  assert.equal(page.url(), `${elsewhere}/reset`);
  assert.equal(await page.getAttribute("#notice-next a", "href"), `${server.origin}/reset#al_reset_x`);
});

test("nothing went wrong in any page, and nobody else was asked", () => {
  assert.deepEqual(faults, []);
});
