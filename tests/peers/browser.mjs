// Loads a page in a headless browser and prints what the page leaves in `window.result`, as one line of JSON.
// Arguments: `chromium` or `firefox`, path of the browser, URL, time limit in seconds (default 60), and the SHA-256 of a
// key in base64: Chromium then trusts certificates with it, while an error that is only ignored keeps it from sharing a
// connection between hosts.
// Chromium is driven by the DevTools protocol, Firefox by WebDriver BiDi. Certificates are accepted as they are: the CA of
// a test is in no store. The browser has a profile of its own and ends with this script.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import WebSocket from 'ws';

const [kind, path, url, seconds = '60', key] = process.argv.slice(2);
const profile = mkdtempSync(join(tmpdir(), `${kind}-`));

const FLAGS = {
  chromium: [
    '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-sync',
    '--disable-background-networking', '--disable-component-update', '--disable-dev-shm-usage',
    key ? `--ignore-certificate-errors-spki-list=${key}` : '--ignore-certificate-errors', '--remote-debugging-port=0', `--user-data-dir=${profile}`, 'about:blank',
  ],
  firefox: ['--headless', '--no-remote', '--profile', profile, '--remote-debugging-port', '0', 'about:blank'],
};
// Nothing leaves this machine, and nothing but the page uses its HTTP/2 connection.
const FIREFOX_PREFERENCES = {
  'app.update.enabled': false,
  'browser.shell.checkDefaultBrowser': false,
  'datareporting.policy.dataSubmissionEnabled': false,
  'dom.max_script_run_time': 0,
  'network.captive-portal-service.enabled': false,
  'network.connectivity-service.enabled': false,
  'network.proxy.type': 0,
  'services.settings.server': 'data:,',
  'toolkit.telemetry.server': 'data:,',
};
if (kind === 'firefox') {
  const lines = Object.entries(FIREFOX_PREFERENCES).map(([name, value]) => `user_pref("${name}", ${JSON.stringify(value)});\n`);
  writeFileSync(join(profile, 'user.js'), lines.join(''));
}

const browser = spawn(path, FLAGS[kind], {
  detached: true, stdio: ['ignore', 'ignore', 'pipe'], env: { ...process.env, HOME: profile, MOZ_HEADLESS: '1' },
});
let log = '';
let done = false;

function finish(code, text) {
  if (done) return;
  done = true;
  (code === 0 ? process.stdout : process.stderr).write(`${text}\n`);
  try {
    // With its children: it leads a process group.
    process.kill(-browser.pid, 'SIGKILL');
  } catch { /* It has ended already. */ }
  rmSync(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  process.exit(code);
}

const fail = (why) => finish(1, `${kind}: ${why}\n${log.slice(-2000)}`);
setTimeout(() => fail(`no result within ${seconds} s`), Number(seconds) * 1000);
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => fail(signal));
process.on('uncaughtException', (error) => fail(error.stack));
process.on('unhandledRejection', (error) => fail(error?.stack ?? error));
browser.on('error', (error) => fail(error.message));
browser.on('exit', (code, signal) => fail(`ended with ${code ?? signal}`));

// Where the browser listens, from what it prints.
const endpoint = await new Promise((resolve) => {
  browser.stderr.on('data', (data) => {
    log += data;
    const found = log.match(/(?:DevTools|WebDriver BiDi) listening on (ws:\/\/\S+)/);
    if (found) resolve(found[1]);
  });
});

// Both protocols are commands with a number, answered by an object with the same one.
const socket = new WebSocket(kind === 'firefox' ? `${endpoint}/session` : endpoint, { perMessageDeflate: false });
await once(socket, 'open');
const pending = new Map();
socket.on('message', (data) => {
  const message = JSON.parse(data);
  pending.get(message.id)?.(message);
  pending.delete(message.id);
});
let last = 0;
async function command(method, params, more = {}) {
  const id = ++last;
  const answer = new Promise((resolve) => pending.set(id, resolve));
  socket.send(JSON.stringify({ id, method, params, ...more }));
  const { error, message, result } = await answer;
  if (error) fail(`${method}: ${message ?? JSON.stringify(error)}`);
  return result;
}

const RESULT = `new Promise((resolve) => {
  const look = () => window.result === undefined ? setTimeout(look, 20) : resolve(JSON.stringify(window.result));
  look();
})`;

// A page that leaves its document before it has a result, by a reload for example, is looked at again.
async function looked(look) {
  for (;;) {
    const text = await look();
    if (typeof text === 'string') return text;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

if (kind === 'firefox') {
  await command('session.new', { capabilities: { alwaysMatch: { acceptInsecureCerts: true } } });
  const { contexts: [{ context }] } = await command('browsingContext.getTree', {});
  await command('browsingContext.navigate', { context, url, wait: 'complete' });
  const text = await looked(async () => {
    const id = ++last;
    const answer = new Promise((resolve) => pending.set(id, resolve));
    const params = { expression: RESULT, target: { context }, awaitPromise: true };
    socket.send(JSON.stringify({ id, method: 'script.evaluate', params }));
    return (await answer).result?.result?.value;
  });
  finish(0, text);
} else {
  const { targetId } = await command('Target.createTarget', { url: 'about:blank' });
  const { sessionId } = await command('Target.attachToTarget', { targetId, flatten: true });
  const { errorText } = await command('Page.navigate', { url }, { sessionId });
  if (errorText) fail(`${url}: ${errorText}`);
  const text = await looked(async () => {
    const id = ++last;
    const answer = new Promise((resolve) => pending.set(id, resolve));
    const params = { expression: RESULT, awaitPromise: true, returnByValue: true };
    socket.send(JSON.stringify({ id, method: 'Runtime.evaluate', params, sessionId }));
    return (await answer).result?.result?.value;
  });
  finish(0, text);
}
