// The tests' judge: `oidc-provider` (certified) with rotation of refresh tokens on, and an API that takes its tokens.
//
// Settings are one line of JSON on standard input:
//   { "clients": [<client metadata of RFC 7591>], "scopes": ["…"], "api_keys": { "<key>": "<subject>" },
//     "lifetimes": { "access_token": 3600, "client_credentials": 3600, "refresh_token": 86400, "authorization_code": 60 } }
//   { "fresh_keys": true } for keys of its own instead of the library's, { "jwt_audiences": ["…"] } for resources whose access tokens
//   are JWTs, { "jwt_claims": { … } } for what those say besides, { "port": 1234 } for one port and no other, { "clock_offset_seconds": -60 } for a clock that is off.
// It prints `READY <port>`, then one line of JSON for each event, and ends when standard input is closed.
//
// Under /control/ the test reads and steers: GET events, GET requests, POST answers.

import { createHash, generateKeyPairSync, randomBytes } from 'node:crypto';
import { appendFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

// The library's hints about a quick start belong beside the log, not in it.
console.info = console.warn;

const { default: Provider } = await import('oidc-provider');
const { Api, readBody } = await import('./api.mjs');

const lines = createInterface({ input: process.stdin });
const settings = JSON.parse(await new Promise((resolve) => lines.once('line', resolve)));
lines.on('close', () => process.exit(0));

if (settings.clock_offset_seconds) {
  const now = Date.now;
  Date.now = () => now() + settings.clock_offset_seconds * 1000;
}

const lifetimes = {
  access_token: 3600, client_credentials: 3600, refresh_token: 86400, authorization_code: 60, ...settings.lifetimes,
};

const events = [];
function record(event) {
  events.push(event);
  process.stdout.write(`${JSON.stringify(event)}\n`);
}

// Where the tests note their secrets, which nothing may put out: see tests/canary.
const notes = process.env.CLAWCOIL_TEST_RUN
  && join(process.env.CLAWCOIL_TEST_RUN, 'canaries', `${process.pid}-authorization-server.jsonl`);
const noted = new Set();
function note(kind, secret) {
  if (!notes || typeof secret !== 'string' || noted.has(secret)) {
    return;
  }
  noted.add(secret);
  const hex = Buffer.from(secret).toString('hex');
  appendFileSync(notes, `${JSON.stringify({ kind, hex, then: 0, from: 'authorization-server' })}\n`);
}
function noteAll({ params, body }) {
  note('authorization code', params?.code);
  note('code verifier', params?.code_verifier);
  note('refresh token', params?.refresh_token);
  note('client secret', params?.client_secret);
  note('access token', body?.access_token);
  note('refresh token', body?.refresh_token);
}

// Tokens stand in the log as digests: enough to count with, of no use to who reads it.
const digest = (token) => (token === undefined ? undefined : createHash('sha256').update(token).digest('hex'));

let provider;
const answers = [];

const server = createServer((request, response) => {
  serve(request, response).catch((error) => {
    record({ event: 'crash', message: String(error) });
    response.destroy();
  });
});
await new Promise((resolve) => server.listen(settings.port ?? 0, '127.0.0.1', resolve));
const { port } = server.address();
const issuer = `http://127.0.0.1:${port}`;
const resource = `${issuer}/api`;

function freshKey() {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { ...privateKey.export({ format: 'jwk' }), kid: randomBytes(8).toString('hex'), use: 'sig', alg: 'RS256' };
}

provider = new Provider(issuer, {
  clients: settings.clients,
  ...(settings.fresh_keys && { jwks: { keys: [freshKey()] } }),
  scopes: ['openid', 'offline_access', ...settings.scopes],
  cookies: { keys: [randomBytes(32).toString('hex')] },
  pkce: { required: () => true },
  rotateRefreshToken: true,
  issueRefreshToken: async (_context, client) => client.grantTypeAllowed('refresh_token'),
  expiresWithSession: async () => false,
  findAccount: async (_context, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
  ttl: {
    AccessToken: lifetimes.access_token + 1,
    AuthorizationCode: lifetimes.authorization_code,
    ClientCredentials: lifetimes.client_credentials + 1,
    RefreshToken: lifetimes.refresh_token,
    Grant: lifetimes.refresh_token,
    Interaction: 600,
    Session: 600,
    IdToken: 600,
  },
  ...(settings.jwt_claims && { extraTokenClaims: async () => settings.jwt_claims }),
  extraClientMetadata: { properties: ['instance_url'] },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: true },
    introspection: { enabled: true, allowedPolicy: async () => true },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: async () => resource,
      useGrantedResource: async () => true,
      getResourceServerInfo: async (_context, indicator) => (settings.jwt_audiences?.includes(indicator)
        ? { scope: settings.scopes.join(' '), audience: indicator, accessTokenFormat: 'jwt', jwt: { sign: { alg: 'RS256' } } }
        : { scope: settings.scopes.join(' '), audience: resource, accessTokenFormat: 'opaque' }),
    },
  },
});

function tokenEvent(context, outcome) {
  const { params = {}, client, entities = {} } = context.oidc ?? {};
  noteAll({ params, body: context.body });
  const access = entities.AccessToken ?? entities.ClientCredentials;
  record({
    event: 'token',
    grant_type: params.grant_type,
    client_id: client?.clientId,
    subject: entities.Account?.accountId,
    grant_id: entities.Grant?.jti ?? access?.grantId,
    refresh_token_presented: digest(params.refresh_token),
    rotations: entities.RefreshToken?.rotations ?? 0,
    ...outcome,
  });
}
provider.on('grant.success', (context) => tokenEvent(context, {
  access_token: digest(context.body.access_token), refresh_token_issued: digest(context.body.refresh_token),
}));
provider.on('grant.error', (context, error) => tokenEvent(context, {
  error: error.error, detail: error.error_detail, reuse: error.error_detail === 'refresh token already used',
}));
provider.on('grant.revoked', (_context, grant) => record({ event: 'grant-revoked', grant_id: grant }));
for (const kind of ['access_token', 'refresh_token', 'client_credentials']) {
  provider.on(`${kind}.destroyed`, (token) => record({ event: 'destroyed', kind, grant_id: token.grantId }));
}
provider.on('server_error', (_context, error) => record({ event: 'crash', message: String(error) }));

provider.use(async (context, next) => {
  await next();
  if (context.oidc?.route !== 'token' || context.status !== 200) {
    return;
  }
  // The library counts in whole seconds, so a token may end up to one earlier than it was said to: it gets that second.
  context.body = { ...context.body, expires_in: context.body.expires_in - 1 };
  // Whose account it is, as many add.
  const account = context.oidc.entities.Account?.accountId;
  if (account) {
    context.body.account = account;
  }
  // What Salesforce adds.
  const url = context.oidc.client.instance_url;
  if (url) {
    context.body.instance_url = url;
  }
});

const api = new Api({
  keys: settings.api_keys ?? {},
  lookUp: async (token) => {
    const found = await provider.AccessToken.find(token) ?? await provider.ClientCredentials.find(token);
    return found?.isValid ? { subject: found.accountId ?? found.clientId, scope: found.scope ?? '' } : undefined;
  },
  record,
});

const handler = provider.callback();

// A scripted answer stands in for the next request to its path, once.
function scripted(path) {
  const at = answers.findIndex((answer) => answer.path === path);
  return at < 0 ? undefined : answers.splice(at, 1)[0];
}

async function serve(request, response) {
  const { pathname } = new URL(request.url, issuer);
  if (pathname.startsWith('/control/')) {
    return control(pathname, request, response);
  }
  const answer = scripted(pathname);
  if (answer?.delay_ms) {
    await new Promise((resolve) => setTimeout(resolve, answer.delay_ms));
  }
  if (answer?.status) {
    const body = await readBody(request);
    record({ event: 'scripted', path: pathname, status: answer.status, bytes: body.length });
    const text = typeof answer.body === 'string' ? answer.body : JSON.stringify(answer.body ?? {});
    response.writeHead(answer.status, { 'content-type': 'application/json', ...answer.headers });
    return response.end(text);
  }
  if (answer?.lose_answer) {
    // The work is done, and the answer never arrives: what a broken connection looks like from the other side.
    record({ event: 'answer-lost', path: pathname });
    response.write = () => true;
    response.end = () => response.socket.destroy();
  }
  return api.handles(pathname) ? api.serve(request, response) : handler(request, response);
}

async function control(path, request, response) {
  const reply = (value) => {
    response.writeHead(200, { 'content-type': 'application/json' });
    response.end(JSON.stringify(value));
  };
  switch (`${request.method} ${path}`) {
    case 'GET /control/events': return reply(events);
    case 'GET /control/requests': return reply(api.requests);
    case 'POST /control/answers':
      answers.push(...JSON.parse(await readBody(request)));
      return reply({});
    default:
      response.writeHead(404);
      return response.end();
  }
}

process.stdout.write(`READY ${port}\n`);
