// Connecting an account and signing in, as people do it.

import assert from 'node:assert/strict';
import { play } from './harness.mjs';

await play({
  async 'connect by keyboard'(stage) {
    const session = await stage.ask();
    const alice = await (await stage.person()).signIn('--user', 'alice', '--connect', session.id);
    await alice.says('Connect your Google account?');
    await alice.says('POST only');
    await alice.looksRightEverywhere('connect');
    await alice.pressByKeyboard('Continue to Google');
    await alice.consent('alice@mail.example');
    await alice.says('Is this your account?');
    await alice.says('alice@mail.example');
    assert.equal(await stage.state(session), 'unconfirmed');
    await alice.looksRightEverywhere('confirm');
    await alice.page.getByRole('button', { name: 'mine' }).click();
    await alice.says('You can close this window');
    await alice.looksRight('connected');
    assert.equal(await stage.state(session), 'connected');
    await alice.page.goto(`${stage.origin}/`);
    await alice.says('Waiting for you');
    await alice.looksRight('home-user');
  },

  async 'decline'(stage) {
    const session = await stage.ask();
    const alice = await (await stage.person()).signIn('--user', 'alice');
    await alice.says('asks for your google account');
    await alice.looksRightEverywhere('waiting');
    await alice.page.getByRole('link', { name: 'Look at it' }).last().click();
    await alice.page.goto(session.url);
    await alice.page.getByRole('button', { name: 'Decline' }).click();
    await alice.says('because you said no');
    await alice.looksRight('declined');
    assert.equal(await stage.state(session), 'declined');
    await alice.page.goto(session.url);
    assert.equal(await alice.page.getByRole('button', { name: 'Continue' }).count(), 0);
  },

  async 'not my account'(stage) {
    const session = await stage.ask();
    const alice = await (await stage.person()).signIn('--user', 'alice', '--connect', session.id);
    await alice.page.getByRole('button', { name: 'Continue' }).click();
    await alice.consent('somebody@mail.example');
    await alice.page.getByRole('button', { name: 'No, disconnect it' }).click();
    await alice.says('Nothing was connected');
    assert.equal(await stage.state(session), 'declined');
  },

  async 'forwarded link refused'(stage) {
    const session = await stage.ask();
    const bob = await (await stage.person()).signIn('--user', 'bob');
    await bob.page.goto(session.url);
    await bob.says('This link is for somebody else');
    assert.equal(await bob.page.getByRole('button', { name: 'Continue' }).count(), 0);
    await bob.looksRightEverywhere('forwarded');
    const nobody = await stage.person();
    await nobody.page.goto(session.url);
    await nobody.says('Before you go on');
    await nobody.looksRightEverywhere('sign-in-to-connect');
    assert.equal(await stage.state(session), 'waiting');
  },

  async 'sign in by a link, once'(stage) {
    const link = stage.link('--operator');
    const operator = await stage.person();
    await operator.page.goto(link);
    await operator.looksRightEverywhere('sign-in-link');
    await operator.page.getByRole('button', { name: 'Sign in' }).click();
    await operator.says('operator');
    const late = await stage.person();
    await late.page.goto(link);
    await late.says('signed somebody in already');
    await late.looksRight('link-used');
    await operator.page.getByRole('button', { name: 'Sign out' }).click();
    await operator.page.goto(`${stage.origin}/`);
    assert(operator.page.url().includes('/sign-in'));
  },

  async 'sign in at an identity provider'(stage) {
    const alice = await stage.person();
    await alice.page.goto(`${stage.origin}/`);
    await alice.looksRightEverywhere('sign-in');
    await alice.page.getByRole('link', { name: 'Sign in with' }).click();
    await alice.consent('alice');
    await alice.says('Waiting for you');
  },

  async 'the provider says no, and it is tried again'(stage) {
    const session = await stage.ask();
    const alice = await (await stage.person()).signIn('--user', 'alice', '--connect', session.id);
    await fetch(`${stage.provider}/control/answers`, {
      method: 'POST', body: JSON.stringify([{ path: '/token', status: 503, body: { error: 'temporarily_unavailable' } }]),
    });
    await alice.page.getByRole('button', { name: 'Continue' }).click();
    await alice.consent('alice@mail.example');
    await alice.says('Nothing was connected yet');
    await alice.looksRightEverywhere('mishap');
    await alice.page.getByRole('button', { name: 'Continue' }).click();
    await alice.consent('alice@mail.example');
    await alice.says('Is this your account?');
  },
});
