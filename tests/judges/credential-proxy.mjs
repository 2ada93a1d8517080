// Puts a credential on each request: the judge of the Model Context Protocol can't send one itself.
//
// The host is named as the judge named it, if it meant this proxy, and left alone otherwise: what a rebound name or a foreign
// page would send arrives as it is.
//
// usage: node credential-proxy.mjs ORIGIN < token

import { createServer, request } from 'node:http';
import { readFileSync } from 'node:fs';

const target = new URL(process.argv[2]);
const token = readFileSync(0, 'utf8').trim();

const server = createServer((incoming, outgoing) => {
  const own = (value) => value?.replace(/(localhost|127\.0\.0\.1):\d+/, (_, name) => `${name}:${target.port}`);
  const headers = { ...incoming.headers, authorization: `Bearer ${token}` };
  headers.host = own(headers.host);
  if (headers.origin) headers.origin = own(headers.origin);
  const forwarded = request(
    { host: target.hostname, port: target.port, method: incoming.method, path: incoming.url, headers },
    (answer) => {
      outgoing.writeHead(answer.statusCode, answer.headers);
      answer.pipe(outgoing);
    },
  );
  forwarded.on('error', () => outgoing.destroy());
  outgoing.on('close', () => forwarded.destroy());
  incoming.pipe(forwarded);
});
server.listen(0, '127.0.0.1', () => console.log(`READY http://127.0.0.1:${server.address().port}`));
