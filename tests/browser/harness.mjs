// What the scenarios stand on: Chromium, the command, the API, a judge of accessibility, pictures.
//
// Settings are one line of JSON on standard input:
//   { "command": ["clawcoil", "--home", "…"], "origin": "http://127.0.0.1:…", "provider": "http://127.0.0.1:…",
//     "token": "…", "tokens": { "bob": "…" }, "pictures": "folder or null", "scenarios": ["…"] or null for all }
// Each scenario that passes is one line on standard output; the first that does not ends the program with its reason.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

const PLACES = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];

function executable() {
  const found = PLACES.find((place) => place && existsSync(place));
  assert(found, 'Chromium is not installed: apt-get install chromium, or name it in the variable CHROMIUM');
  return found;
}

/** The pages in one window, of a person with cookies of their own. */
export class Person {
  constructor(stage, context, page) {
    this.stage = stage;
    this.context = context;
    this.page = page;
  }

  /** Opens a one-time link of the command line, and signs in by it. */
  async signIn(...who) {
    await this.page.goto(this.stage.link(...who));
    await this.page.getByRole('button', { name: 'Sign in' }).click();
    return this;
  }

  /** Signs in at the authorization server where it asks, and allows what it asks for. */
  async consent(login) {
    await this.page.waitForURL(`${this.stage.provider}/**`);
    if (await this.page.locator('input[name=login]').count()) {
      await this.page.fill('input[name=login]', login);
      await this.page.fill('input[name=password]', 'any');
      await this.page.locator('button[type=submit]').click();
    }
    await this.page.waitForURL(`${this.stage.provider}/**`);
    await this.page.locator('button[type=submit]').click();
    await this.page.waitForURL(`${this.stage.origin}/**`);
  }

  /** Holds the page to the rules of accessibility, and to the width of its window; keeps a picture of it. */
  async looksRight(name, { width = 1280, dark = false } = {}) {
    await this.page.setViewportSize({ width, height: width < 600 ? 800 : 900 });
    await this.page.emulateMedia({ colorScheme: dark ? 'dark' : 'light', reducedMotion: 'reduce' });
    if (this.stage.pictures) {
      mkdirSync(this.stage.pictures, { recursive: true });
      await this.page.screenshot({ path: join(this.stage.pictures, `${name}.png`), fullPage: true });
    }
    await this.page.evaluate(axe);
    const { violations } = await this.page.evaluate(() => globalThis.axe.run(document, {
      runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'],
    }));
    const told = violations.map(({ impact, id, nodes }) => `${impact} ${id}: ${nodes.map((n) => n.html).join(' ')}`);
    assert.deepEqual(told, [], `${name}: axe finds ${told.join('\n')}`);
    const wide = await this.page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert(wide <= 0, `${name}: the page is ${wide} pixels wider than its window of ${width}`);
  }

  /** The same in light and dark, wide and narrow. */
  async looksRightEverywhere(name) {
    await this.looksRight(`${name}-narrow`, { width: 360 });
    await this.looksRight(`${name}-dark`, { dark: true });
    await this.looksRight(name);
  }

  async says(text) {
    await this.page.getByText(text, { exact: false }).filter({ visible: true }).first().waitFor({ timeout: 10_000 });
  }

  /** Presses Tab until what has the focus is called so, and then Enter. */
  async pressByKeyboard(name) {
    for (let n = 0; n < 30; n += 1) {
      await this.page.keyboard.press('Tab');
      const focused = await this.page.evaluate(() => document.activeElement?.textContent?.trim());
      if (focused === name) {
        await this.page.keyboard.press('Enter');
        return;
      }
    }
    assert.fail(`the keyboard does not reach ${name}`);
  }
}

export class Stage {
  constructor(settings, browser) {
    Object.assign(this, settings);
    this.browser = browser;
  }

  /** Somebody with a browser of their own. Whatever a page logs as an error ends the scenario. */
  async person() {
    const context = await this.browser.newContext({ locale: 'en-GB', timezoneId: 'UTC' });
    const page = await context.newPage();
    const person = new Person(this, context, page);
    person.errors = [];
    page.on('pageerror', (error) => person.errors.push(String(error)));
    page.on('console', (message) => {
      // That an answer is a 403 is what some scenarios want.
      if (message.type() === 'error' && !message.text().startsWith('Failed to load resource')) {
        person.errors.push(message.text());
      }
    });
    this.people.push(person);
    return person;
  }

  run(...command) {
    const [program, ...first] = this.command;
    return execFileSync(program, [...first, ...command], { encoding: 'utf8' });
  }

  /** A one-time link. */
  link(...who) {
    return JSON.parse(this.run('console', '--print', '--json', '--url', this.origin, ...who)).url;
  }

  async api(method, path, body, token = this.token) {
    const answer = await fetch(this.origin + path, {
      method,
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      body: body && JSON.stringify(body),
    });
    return { status: answer.status, body: await answer.json() };
  }

  /** A connect session for alice. */
  async ask() {
    const { status, body } = await this.api('POST', '/v1/connect-sessions', { provider: 'google', skill: 'gmail-send' });
    assert.equal(status, 201, JSON.stringify(body));
    return body;
  }

  /** The same for somebody else. */
  async askFor(user) {
    const wanted = { provider: 'google', skill: 'gmail-send' };
    const { status, body } = await this.api('POST', '/v1/connect-sessions', wanted, this.tokens[user]);
    assert.equal(status, 201, JSON.stringify(body));
    return body;
  }

  async state(session) {
    return (await this.api('GET', `/v1/connect-sessions/${session.id}`)).body.state;
  }
}

/** Runs the scenarios: name → function of the stage. */
export async function play(scenarios) {
  const settings = JSON.parse(readFileSync(0, 'utf8'));
  const browser = await chromium.launch({ executablePath: executable(), args: ['--no-sandbox', '--disable-gpu'] });
  const chosen = Object.entries(scenarios).filter(([name]) => !settings.scenarios || settings.scenarios.includes(name));
  assert(chosen.length > 0, 'no such scenario');
  try {
    for (const [name, scenario] of chosen) {
      const stage = new Stage({ ...settings, people: [] }, browser);
      try {
        await scenario(stage);
        for (const person of stage.people) {
          assert.deepEqual(person.errors, [], `${name}: the browser's console`);
        }
      } catch (error) {
        for (const person of stage.people) {
          console.error(`at ${person.page.url()}: ${(await person.page.locator('body').innerText()).slice(0, 2000)}`);
        }
        throw new Error(`${name}: ${error.message}`, { cause: error });
      }
      await Promise.all(stage.people.map((person) => person.context.close()));
      console.log(`passed ${name}`);
    }
  } finally {
    await browser.close();
  }
}
