// The APIs that the example skills speak to, as far as those skills go: same paths, bodies, statuses and error shapes.
//
// Each request is checked against the authorization server's own tokens and kept with the subject that it acted for.

import { createHmac, timingSafeEqual } from 'node:crypto';

export async function readBody(request) {
  const chunks = [];
  for await (const chunk of request) {
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

const google = (code, status, message) => ({ error: { code, message, status, errors: [{ message }] } });
const salesforce = (errorCode, message) => [{ message, errorCode }];

export class Api {
  #keys;
  #lookUp;
  #record;
  #counter = 0;
  requests = [];

  constructor({ keys, lookUp, record }) {
    this.#keys = keys;
    this.#lookUp = lookUp;
    this.#record = record;
  }

  #routes = [
    ['GET', /^\/api\/echo-user$/, this.#echoUser],
    ['POST', /^\/gmail\/v1\/users\/me\/messages\/send$/, this.#gmail],
    ['POST', /^\/repos\/([^/]+)\/([^/]+)\/issues$/, this.#github],
    ['POST', /^\/api\/chat\.postMessage$/, this.#slack],
    ['PATCH', /^\/services\/data\/v\d+\.0\/sobjects\/([^/]+)\/([^/]+)$/, this.#salesforce],
    ['GET', /^\/v1\/reports\/([^/]+)$/, this.#report],
    ['GET', /^\/data\/2\.5\/weather$/, this.#weather],
    ['POST', /^\/hooks\/([^/]+)$/, this.#webhook],
  ];

  handles(path) {
    return this.#routes.some(([, pattern]) => pattern.test(path));
  }

  async serve(request, response) {
    const url = new URL(request.url, 'http://api.invalid');
    const body = await readBody(request);
    const token = /^Bearer (.+)$/i.exec(request.headers.authorization ?? '')?.[1];
    const holder = token === undefined ? undefined : await this.#lookUp(token) ?? this.#fixed(token);
    const entry = {
      method: request.method, path: url.pathname, query: Object.fromEntries(url.searchParams), headers: request.headers,
      body, subject: holder?.subject, scope: holder?.scope,
    };
    this.requests.push(entry);

    const route = this.#routes.find(([method, pattern]) => method === request.method && pattern.test(url.pathname));
    const answer = route
      ? await route[2].call(this, entry, route[1].exec(url.pathname).slice(1).map(decodeURIComponent))
      : { status: 405, body: { message: 'Method Not Allowed' } };
    entry.status = answer.status;
    this.#record({
      event: 'api', method: entry.method, path: entry.path, subject: entry.subject, status: answer.status,
    });
    response.writeHead(answer.status, { 'content-type': 'application/json; charset=utf-8', ...answer.headers });
    response.end(answer.body === undefined ? undefined : JSON.stringify(answer.body));
  }

  // A credential that does not come from the token endpoint: it may do everything.
  #fixed(token) {
    const subject = this.#keys[token];
    return subject && { subject, scope: 'https://www.googleapis.com/auth/gmail.send' };
  }

  #next() {
    this.#counter += 1;
    return this.#counter;
  }

  #echoUser({ subject, scope }) {
    return subject ? { status: 200, body: { subject, scope } } : { status: 401, body: { message: 'no valid token' } };
  }

  #gmail({ subject, scope, body }) {
    if (!subject) {
      return { status: 401, body: google(401, 'UNAUTHENTICATED', 'Request had invalid authentication credentials.') };
    }
    if (!scope.split(' ').includes('https://www.googleapis.com/auth/gmail.send')) {
      return {
        status: 403,
        body: google(403, 'PERMISSION_DENIED', 'Request had insufficient authentication scopes.'),
      };
    }
    const { raw } = JSON.parse(body);
    const message = Buffer.from(raw ?? '', 'base64url').toString('utf8');
    if (!/^To: .+@/m.test(message)) {
      return { status: 400, body: google(400, 'INVALID_ARGUMENT', 'Recipient address required') };
    }
    const id = this.#next().toString(16).padStart(16, '0');
    return { status: 200, body: { id, threadId: id, labelIds: ['SENT'] } };
  }

  #github({ subject, headers, body }, [owner, repository]) {
    if (!headers['user-agent']) {
      return { status: 403, body: { message: 'Request forbidden by administrative rules.' } };
    }
    if (!subject) {
      return { status: 401, body: { message: 'Bad credentials' } };
    }
    const { title } = JSON.parse(body);
    if (!title) {
      const errors = [{ resource: 'Issue', code: 'missing_field', field: 'title' }];
      return { status: 422, body: { message: 'Validation Failed', errors } };
    }
    const number = this.#next();
    return {
      status: 201,
      body: { number, html_url: `https://github.com/${owner}/${repository}/issues/${number}`, state: 'open', title },
    };
  }

  #slack({ subject, body }) {
    if (!subject) {
      return { status: 200, body: { ok: false, error: 'invalid_auth' } };
    }
    const { channel, text } = JSON.parse(body);
    if (!channel) {
      return { status: 200, body: { ok: false, error: 'channel_not_found' } };
    }
    const ts = `1700000000.${String(this.#next()).padStart(6, '0')}`;
    return { status: 200, body: { ok: true, channel, ts, message: { type: 'message', text, ts } } };
  }

  #salesforce({ subject, body }, [type]) {
    if (!subject) {
      return { status: 401, body: salesforce('INVALID_SESSION_ID', 'Session expired or invalid') };
    }
    const unknown = Object.keys(JSON.parse(body)).find((field) => !/^[A-Z][A-Za-z0-9_]*$/.test(field));
    if (unknown !== undefined) {
      const message = `No such column '${unknown}' on sobject of type ${type}`;
      return { status: 400, body: salesforce('INVALID_FIELD', message) };
    }
    return { status: 204 };
  }

  #report({ subject, query }, [name]) {
    if (!subject) {
      return { status: 401, body: { error: 'unauthorized' }, headers: { 'www-authenticate': 'Bearer' } };
    }
    return {
      status: 200,
      body: { name, month: query.month, prepared_for: subject, rows: [{ label: 'orders', value: 42 }] },
    };
  }

  #weather(entry) {
    entry.subject = this.#keys[entry.query.appid];
    if (!entry.subject) {
      return { status: 401, body: { cod: 401, message: 'Invalid API key.' } };
    }
    if (entry.query.q === 'Nowhere') {
      return { status: 404, body: { cod: '404', message: 'city not found' } };
    }
    return {
      status: 200,
      body: {
        name: entry.query.q,
        weather: [{ id: 800, main: 'Clear', description: 'clear sky', icon: '01d' }],
        main: { temp: 18.5, feels_like: 18.1, pressure: 1014, humidity: 60 },
        wind: { speed: 3.4, deg: 250 },
        cod: 200,
      },
    };
  }

  // https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
  #webhook(entry) {
    const id = entry.headers['webhook-id'];
    const timestamp = entry.headers['webhook-timestamp'];
    const signed = `${id}.${timestamp}.${entry.body}`;
    for (const [key, subject] of Object.entries(this.#keys)) {
      const secret = Buffer.from(key.replace(/^whsec_/, ''), 'base64');
      const expected = Buffer.from(`v1,${createHmac('sha256', secret).update(signed).digest('base64')}`);
      const given = Buffer.from(entry.headers['webhook-signature'] ?? '');
      if (given.length === expected.length && timingSafeEqual(given, expected)) {
        entry.subject = subject;
        return { status: 200, body: {} };
      }
    }
    return { status: 401, body: { error: 'the signature does not match' } };
  }
}
