// The console, as operators, auditors and users have it.

import assert from 'node:assert/strict';
import { play } from './harness.mjs';

await play({
  async 'an operator looks around'(stage) {
    const operator = await (await stage.person()).signIn('--operator');
    await operator.says('What needs somebody');
    await operator.looksRightEverywhere('overview');
    await operator.page.getByRole('link', { name: 'Connections', exact: true }).click();
    await operator.says('Healthy');
    await operator.looksRightEverywhere('connections');
    await operator.page.locator('tbody a').first().click();
    await operator.says('What it may be used for');
    await operator.looksRightEverywhere('connection');
    await operator.page.getByRole('link', { name: 'Skills', exact: true }).click();
    await operator.looksRightEverywhere('skills');
    await operator.page.getByRole('link', { name: 'gmail-send' }).click();
    await operator.says('never sees a token');
    await operator.looksRightEverywhere('skill');
    await operator.page.getByRole('link', { name: 'Activity', exact: true }).click();
    await operator.says('How long calls took');
    await operator.looksRightEverywhere('activity');
    await operator.page.getByText('The same as a table').click();
    await operator.looksRight('activity-table-narrow', { width: 360 });
  },

  async 'why a skill may and may not'(stage) {
    const operator = await (await stage.person()).signIn('--operator');
    await operator.page.getByRole('link', { name: 'Policy', exact: true }).click();
    await operator.says('Choose a user and a skill');
    await operator.looksRightEverywhere('policy-empty');
    await operator.page.getByLabel('User').fill('alice');
    await operator.page.getByLabel('Skill').selectOption('gmail-send');
    await operator.page.getByLabel('Address of the request').fill('https://evil.example/');
    await operator.page.getByRole('button', { name: 'Why?' }).click();
    await operator.says('Decided by');
    await operator.says('Granted');
    await operator.says('Denied');
    await operator.looksRightEverywhere('policy');
    await operator.page.getByRole('link', { name: /permissions.toml:\d+/ }).first().click();
    assert.match(operator.page.url(), /#f0-\d+$/);
    await operator.looksRight('policy-line');
  },

  async 'the audit log, filtered'(stage) {
    const auditor = await (await stage.person()).signIn('--auditor');
    await auditor.page.getByRole('link', { name: 'Audit', exact: true }).click();
    await auditor.says('invoked');
    await auditor.looksRightEverywhere('audit');
    await auditor.page.getByLabel('User').fill('alice');
    await auditor.page.getByLabel('What happened').selectOption('invoked');
    await auditor.page.getByRole('button', { name: 'Show' }).click();
    await auditor.page.waitForURL(/kind=invoked/);
    const kinds = await auditor.page.locator('tbody th').allInnerTexts();
    assert(kinds.length > 5 && kinds.every((kind) => kind.includes('invoked')), kinds.join());
    await auditor.looksRight('audit-filtered');
    await auditor.page.locator('tbody th a').first().click();
    await auditor.says('Receipt');
    await auditor.looksRightEverywhere('receipt');
    await auditor.page.goto(`${stage.origin}/audit`);
    await auditor.page.getByRole('link', { name: 'Verify' }).click();
    await auditor.says('The log is whole');
    await auditor.looksRightEverywhere('verified');
    await auditor.page.getByRole('link', { name: 'Back to the log' }).click();
    const [download] = await Promise.all([
      auditor.page.waitForEvent('download'),
      auditor.page.getByRole('link', { name: 'Export' }).click(),
    ]);
    assert.match(download.suggestedFilename(), /^audit-.*\.jsonl$/);
    const alice = await (await stage.person()).signIn('--user', 'alice');
    await alice.page.getByRole('link', { name: 'My calls' }).click();
    await alice.says('gmail-send.send');
    await alice.looksRightEverywhere('my-calls');
  },

  async 'an empty host says what to do'(stage) {
    const operator = await (await stage.person()).signIn('--operator');
    await operator.page.goto(`${stage.origin}/connections?user=nobody`);
    await operator.says('No connection is like that');
    await operator.looksRight('connections-none');
  },

  async 'a page follows what happens'(stage) {
    const bob = await (await stage.person()).signIn('--user', 'bob');
    await bob.says('Live');
    await bob.says('asks here');
    const session = await stage.askFor('bob');
    await bob.says('asks for your Google account');
    const other = await (await stage.person()).signIn('--user', 'bob');
    await other.page.goto(session.url);
    await other.page.getByRole('button', { name: 'Decline' }).click();
    await bob.says('asks here');
    // Whoever signs out is told nothing any more.
    await other.page.goto(`${stage.origin}/`);
    await other.says('Live');
    await bob.page.getByRole('button', { name: 'Sign out' }).click();
    await bob.says('With a link from the command line');
  },

  async 'disconnect'(stage) {
    const bob = await (await stage.person()).signIn('--user', 'bob');
    await bob.says('Connected');
    await bob.looksRightEverywhere('my-accounts');
    await bob.page.getByRole('link', { name: 'Disconnect Google' }).click();
    await bob.says('Disconnect Google?');
    await bob.looksRightEverywhere('disconnect');
    await bob.page.getByRole('link', { name: 'No, keep it' }).click();
    await bob.page.getByRole('link', { name: 'Disconnect' }).click();
    await bob.page.getByRole('button', { name: 'Yes, disconnect it' }).click();
    await bob.says('Google has ended its tokens');
    await bob.looksRight('disconnected');
    await bob.page.getByRole('link', { name: 'My accounts' }).first().click();
    await bob.says('No account of yours is connected');
  },

  async 'approve an upgrade'(stage) {
    const auditor = await (await stage.person()).signIn('--auditor');
    await auditor.page.goto(`${stage.origin}/skills/gmail-send`);
    await auditor.says('It wants more');
    assert.equal(await auditor.page.getByRole('button', { name: /Approve|Reject/ }).count(), 0);
    const operator = await (await stage.person()).signIn('--operator');
    await operator.page.getByRole('link', { name: 'Compare' }).click();
    await operator.says('gmail.readonly');
    await operator.looksRightEverywhere('upgrade');
    await operator.page.getByRole('button', { name: 'Approve' }).click();
    await operator.says('is in use instead of');
    await operator.looksRight('approved');
  },
});
