// SPDX-License-Identifier: Apache-2.0

// A device that shares no code with this repository: it was written from
// examples/attester/PROTOCOL.md and the TPM specification, and shows that the document
// is enough. It speaks to a TPM 2.0 on a Unix socket, which it has for itself.
//
// One line of JSON on standard input configures it:
//
//   tpm        path of the socket
//   attester   URL of the Client Attester
//   clientID   whom the attestation is for
//   times      how many attestations to get, one after the other
//   eventLog   measured-boot log, base64 (or left out)
//   ekCerts    certificates to send instead of the TPM's own, base64 (or left out)
//
// It answers with one line on standard output: {"jwk":…,"attestations":[…]}, or
// {"error":"code of the attester"}.
import * as crypto from 'node:crypto';
import { once } from 'node:events';
import { connect } from 'node:net';
import { createInterface } from 'node:readline';

const config = JSON.parse((await once(createInterface({ input: process.stdin }), 'line'))[0]);

const u8 = (n) => Buffer.from([n]);
const u16 = (n) => Buffer.from([n >> 8 & 255, n & 255]);
const u32 = (n) => Buffer.from([n >>> 24, n >>> 16 & 255, n >>> 8 & 255, n & 255]);
const cat = (...parts) => Buffer.concat(parts);
const sized = (...parts) => cat(u16(cat(...parts).length), ...parts);
const empty = u16(0);
const sha256 = (...parts) => parts.reduce((h, part) => h.update(part), crypto.createHash('sha256')).digest();

// TPM commands.

const socket = connect(config.tpm);
await once(socket, 'connect');

async function exchange(command) {
  socket.write(command);
  let response = Buffer.alloc(0);
  while (response.length < 6 || response.length < response.readUInt32BE(2)) response = cat(response, (await once(socket, 'data'))[0]);
  return response;
}

const noAuth = cat(u32(0x40000009), empty, u8(0), empty); // TPM_RS_PW, no password
const policy = (session) => cat(u32(session), empty, u8(1), empty);

// run sends a command and returns its handle, if it has one, and its parameters.
async function run(code, { handles = [], auths = [], parameters = Buffer.alloc(0), returnsHandle = false }) {
  const area = auths.length ? cat(u32(cat(...auths).length), ...auths) : Buffer.alloc(0);
  const body = cat(...handles.map(u32), area, parameters);
  for (;;) {
    const response = await exchange(cat(u16(auths.length ? 0x8002 : 0x8001), u32(10 + body.length), u32(code), body));
    const rc = response.readUInt32BE(6);
    if (rc === 0x922) continue; // TPM_RC_RETRY
    if (rc !== 0) throw new Error(`TPM command 0x${code.toString(16)}: response code 0x${rc.toString(16)}`);
    const rest = response.subarray(returnsHandle ? 14 : 10);
    return { handle: returnsHandle ? response.readUInt32BE(10) : undefined, parameters: auths.length ? rest.subarray(4, 4 + rest.readUInt32BE(0)) : rest };
  }
}

const take = (bytes) => [bytes.subarray(2, 2 + bytes.readUInt16BE(0)), bytes.subarray(2 + bytes.readUInt16BE(0))];

const loaded = new Set(); // handles
async function createPrimary(hierarchy, area) {
  const { handle, parameters } = await run(0x131, {
    handles: [hierarchy], auths: [noAuth], returnsHandle: true,
    parameters: cat(sized(empty, empty), sized(area), empty, u32(0)),
  });
  loaded.add(handle);
  return { handle, area: take(parameters)[0] };
}
async function flush(handle) {
  loaded.delete(handle);
  await run(0x165, { parameters: u32(handle) });
}

async function readNV(index) {
  const [info] = take((await run(0x169, { handles: [index] })).parameters);
  const size = info.readUInt16BE(info.length - 2);
  let data = Buffer.alloc(0);
  while (data.length < size) {
    const { parameters } = await run(0x14e, { handles: [0x40000001, index], auths: [noAuth], parameters: cat(u16(Math.min(512, size - data.length)), u16(data.length)) });
    data = cat(data, take(parameters)[0]);
  }
  return data.subarray(0, 4 + data.readUInt16BE(2)); // a certificate may be filled up behind
}

const attributes = { fixedTPM: 0x2, fixedParent: 0x10, sensitiveDataOrigin: 0x20, userWithAuth: 0x40, adminWithPolicy: 0x80, noDA: 0x400, restricted: 0x10000, decrypt: 0x20000, sign: 0x40000 };
const flags = (...names) => u32(names.reduce((sum, name) => sum | attributes[name], 0));
const eccSigner = (scheme, ...extra) => cat(
  u16(0x23), u16(0x0b), flags('fixedTPM', 'fixedParent', 'sensitiveDataOrigin', 'userWithAuth', 'noDA', 'sign', ...extra), empty,
  u16(0x10), scheme, u16(3), u16(0x10), empty, empty);
const ecdsaSHA256 = cat(u16(0x18), u16(0x0b));

// The TCG's template L-1 for endorsement keys, RSA-2048, and its policy:
// TPM2_PolicySecret with the endorsement hierarchy.
const ekPolicy = Buffer.from('837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa', 'hex');
const ekTemplate = cat(
  u16(1), u16(0x0b), flags('fixedTPM', 'fixedParent', 'sensitiveDataOrigin', 'adminWithPolicy', 'restricted', 'decrypt'), sized(ekPolicy),
  u16(6), u16(128), u16(0x43), u16(0x10), u16(2048), u32(0), sized(Buffer.alloc(256)));
const ENDORSEMENT = 0x4000000b, OWNER = 0x40000001;
const makeAK = () => createPrimary(ENDORSEMENT, eccSigner(ecdsaSHA256, 'restricted'));
const makeKey = () => createPrimary(OWNER, eccSigner(u16(0x10)));

// The attester.

class Refused extends Error {}

async function post(path, body) {
  const response = await fetch(config.attester + path, {
    method: 'POST', redirect: 'manual',
    ...(body && { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }),
  });
  const answer = await response.json();
  if (response.status !== 200) throw new Refused(answer.error);
  return answer;
}
const b64 = (bytes) => bytes.toString('base64');
const bytes = (text) => Buffer.from(text, 'base64');

async function enrol() {
  const ek = await createPrimary(ENDORSEMENT, ekTemplate);
  const modulus = ek.area.subarray(ek.area.length - 256);
  const spki = crypto.createPublicKey({ key: { kty: 'RSA', n: modulus.toString('base64url'), e: 'AQAB' }, format: 'jwk' }).export({ type: 'spki', format: 'der' });
  const ak = await makeAK();
  const ekCerts = config.ekCerts ?? [b64(await readNV(0x01c00002))];
  const challenge = await post('/tpm/attest', { ek: b64(spki), ekCerts, params: { public: b64(ak.area) } });

  const session = (await run(0x176, {
    handles: [0x40000007, 0x40000007], returnsHandle: true,
    parameters: cat(sized(crypto.randomBytes(16)), empty, u8(1), u16(0x10), u16(0x0b)),
  })).handle;
  await run(0x151, { handles: [ENDORSEMENT, session], auths: [noAuth], parameters: cat(empty, empty, empty, u32(0)) });
  const { parameters } = await run(0x147, {
    handles: [ak.handle, ek.handle], auths: [noAuth, policy(session)],
    parameters: cat(sized(bytes(challenge.credential)), sized(bytes(challenge.secret))),
  });
  await flush(ak.handle);
  await flush(ek.handle);
  const { chain } = await post('/tpm/secret', { session: challenge.session, secret: b64(take(parameters)[0]) });
  return chain.map(bytes);
}

// cbor encodes text, byte strings, negative integers, arrays and objects.
function cbor(value) {
  const head = (major, n) => n < 24 ? u8(major << 5 | n) : n < 256 ? cat(u8(major << 5 | 24), u8(n)) : cat(u8(major << 5 | 25), u16(n));
  if (Buffer.isBuffer(value)) return cat(head(2, value.length), value);
  if (typeof value === 'string') return cat(head(3, value.length), Buffer.from(value));
  if (typeof value === 'number') return head(1, -1 - value);
  if (Array.isArray(value)) return cat(head(4, value.length), ...value.map(cbor));
  return cat(head(5, Object.keys(value).length), ...Object.entries(value).flat().map(cbor));
}

async function readPCRs(pcrs) {
  const values = {};
  for (const pcr of pcrs) { // a TPM gives as many at a time as it likes
    const { parameters } = await run(0x17e, { parameters: select([pcr]) });
    values[pcr] = b64(parameters.subarray(parameters.length - 32));
  }
  return values;
}
function select(pcrs) {
  const bits = Buffer.alloc(3);
  for (const pcr of pcrs) bits[pcr >> 3] |= 1 << (pcr & 7);
  return cat(u32(1), u16(0x0b), u8(3), bits);
}

async function evidence(key, chain, binding, pcrs) {
  const ak = await makeAK();
  const certified = await run(0x148, { handles: [key.handle, ak.handle], auths: [noAuth, noAuth], parameters: cat(sized(binding), u16(0x10)) });
  const [certInfo, sig] = take(certified.parameters);
  const attObj = cbor({ fmt: 'tpm', attStmt: { ver: '2.0', alg: -7, x5c: chain.slice(0, 1), sig, certInfo, pubArea: key.area } }).toString('base64url');
  const message = { attObj };
  if (pcrs.length) {
    const quoted = await run(0x158, { handles: [ak.handle], auths: [noAuth], parameters: cat(sized(binding), u16(0x10), select(pcrs)) });
    const [rawQuote, rawSignature] = take(quoted.parameters);
    const quote = { hashAlgo: 11, pcrValues: await readPCRs(pcrs), rawQuote: b64(rawQuote), rawSignature: b64(rawSignature) };
    message.tpmAttestation = { quotes: [quote], tcgEventLog: config.eventLog };
  }
  await flush(ak.handle);
  return message;
}

async function sign(key, header, payload) {
  const input = [header, payload].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.');
  const { parameters } = await run(0x15d, {
    handles: [key.handle], auths: [noAuth],
    parameters: cat(sized(sha256(input)), ecdsaSHA256, u16(0x8024), u32(0x40000007), empty),
  });
  const [r, rest] = take(parameters.subarray(4));
  const pad = (n) => cat(Buffer.alloc(32 - n.length), n);
  return `${input}.${cat(pad(r), pad(take(rest)[0])).toString('base64url')}`;
}

let chain;
async function attest(key, jwk) {
  const { challenge, pcrs } = await post('/challenge');
  chain ??= await enrol();
  const thumbprint = sha256(JSON.stringify({ crv: jwk.crv, kty: jwk.kty, x: jwk.x, y: jwk.y })).toString('base64url');
  const now = Math.floor(Date.now() / 1000);
  const request = await sign(key, { typ: 'client-attestation-request+jwt', alg: 'ES256', jwk }, {
    iss: config.clientID, aud: config.attester, iat: now, exp: now + 300, jti: crypto.randomUUID(), challenge,
    evidence: await evidence(key, chain, sha256(`${challenge}.${thumbprint}`), pcrs),
  });
  return (await post('/client-attestation', { request })).client_attestation;
}

try {
  const key = await makeKey();
  const [y, x] = [key.area.subarray(-32), key.area.subarray(-66, -34)];
  const jwk = { kty: 'EC', crv: 'P-256', x: x.toString('base64url'), y: y.toString('base64url') };
  const attestations = [];
  for (let i = 0; i < config.times; i++) attestations.push(await attest(key, jwk));
  await flushAll();
  console.log(JSON.stringify({ jwk, attestations }));
} catch (err) {
  if (!(err instanceof Refused)) throw err;
  await flushAll();
  console.log(JSON.stringify({ error: err.message }));
}

// flushAll makes room: the next program has this TPM's memory, too.
async function flushAll() {
  for (const handle of loaded) await flush(handle);
}
process.exit(0);
