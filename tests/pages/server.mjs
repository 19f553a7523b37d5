// A server of one test run on the embedded store, which takes sign-ups and writes its links to its log.
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const PATIENCE_MS = 30_000;

export class Server {
  #binary = process.env.AGENTLENS_BINARY;
  #directory = mkdtempSync(join(tmpdir(), "agentlens-pages-"));
  #environment = { ...process.env, AGENTLENS_DATA_DIR: this.#directory };
  #log = "";
  #process;

  async start() {
    const options = ["--deployment", "cloud", "--log", "info", "--terms-version", "2026-11-28"];
    this.#process = spawn(this.#binary, ["serve", "--listen", "127.0.0.1:0", ...options], { env: this.#environment });
    this.#process.stderr.on("data", (data) => (this.#log += data));
    let printed = "";
    this.#process.stdout.on("data", (data) => (printed += data));
    this.origin = await until(() => /running at (\S+)\s/.exec(printed)?.[1], "the server's address");
  }

  /** The newest link of a page in the log that is not `old`. */
  link(page, old) {
    const pattern = new RegExp(`${this.origin}/${page}#[\\w.~-]+`, "g");
    return until(() => {
      const newest = [...this.#log.matchAll(pattern)].at(-1)?.[0];
      return newest === old ? undefined : newest;
    }, `a link to /${page}`);
  }

  /** Makes a person who owns the org `default`: the password. */
  owner(email) {
    return this.#run("user", "create", email, "--role", "owner").password;
  }

  /** Makes a person who owns an org of their own: the password. */
  stranger(email) {
    const { org_id } = this.#run("org", "create", `Org of ${email}`);
    return this.#run("user", "create", email, "--role", "owner", "--org", org_id).password;
  }

  #run(...command) {
    return JSON.parse(execFileSync(this.#binary, [...command, "--json"], { env: this.#environment }));
  }

  async stop() {
    const ended = new Promise((done) => this.#process.once("exit", done));
    this.#process.kill();
    await ended;
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

/** Asks again and again until there is an answer. */
async function until(ask, what) {
  for (const end = Date.now() + PATIENCE_MS; Date.now() < end; await sleep(20)) {
    const answer = ask();
    if (answer !== undefined) return answer;
  }
  throw new Error(`waited in vain for ${what}`);
}
