// The official client, told what to do by lines of JSON on its input; what it sees it says in lines of JSON.
//
// The first line says where the server is: { url, token } or { command, args }, and how to talk: { mode, elicitation }.
// Then: { list }, { call, arguments, cancelAfter }, { close }. `cancelAfter` milliseconds later the call is cancelled.

import { createInterface } from 'node:readline';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const next = async () => {
  const { value, done } = await lines.next();
  return done ? { close: true } : JSON.parse(value);
};

const settings = await next();
const client = new Client(
  { name: 'tests', version: '1' },
  {
    capabilities: settings.elicitation ? { elicitation: { url: {} } } : {},
    versionNegotiation: { mode: settings.mode },
    listChanged: {
      tools: { onChanged: (error, tools) => say({ event: 'tools-changed', error: error?.message, count: tools?.length }) },
    },
  },
);
if (settings.elicitation) {
  client.setRequestHandler('elicitation/create', async ({ params }) => {
    say({ event: 'elicitation', ...params });
    return { action: settings.elicitation };
  });
}
client.onerror = (error) => say({ event: 'error', message: error.message });

const transport = settings.url
  ? new StreamableHTTPClientTransport(new URL(settings.url), {
      requestInit: { headers: settings.token ? { Authorization: `Bearer ${settings.token}` } : {} },
    })
  : new StdioClientTransport({ command: settings.command, args: settings.args, stderr: 'inherit', env: process.env });

try {
  await client.connect(transport);
} catch (error) {
  say({ event: 'refused', message: error.message, code: error.code });
  process.exit(0);
}
say({ event: 'connected', version: client.getNegotiatedProtocolVersion(), server: client.getServerVersion() });

for (let told = await next(); !told.close; told = await next()) {
  try {
    if (told.list) {
      say({ tools: (await client.listTools()).tools });
    } else {
      const stop = new AbortController();
      if (told.cancelAfter !== undefined) {
        setTimeout(() => stop.abort(new Error('cancelled by the test')), told.cancelAfter);
      }
      const result = await client.callTool(
        { name: told.call, arguments: told.arguments },
        {
          signal: stop.signal,
          timeout: 60_000,
          resetTimeoutOnProgress: true,
          onprogress: told.quiet ? undefined : (progress) => say({ event: 'progress', ...progress }),
        },
      );
      say({ result });
    }
  } catch (error) {
    say({ failed: error.message, code: error.code, data: error.data });
  }
}
await client.close();
process.exit(0);
