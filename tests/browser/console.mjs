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
