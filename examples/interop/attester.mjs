// SPDX-License-Identifier: Apache-2.0

// A Client Attester that shares no code with this repository: it was written from
// examples/attester/PROTOCOL.md, and shows that the document is enough. It looks at
// all that the document says an attester checks of keys and quotes, but not at boot
// logs, registries and revocation; what it is for is the interop tests.
//
// One line of JSON on standard input configures it:
//
//   clientID   the client that it attests instances of
//   roots      certificates of TPM makers, PEM; self-signed ones are trusted
//   pcrs       PCRs to quote
//   software   [{swname, swversion, pcrs: {"0": hex, …}}], releases by their PCRs
//
// It answers with one line on standard output, {"url":"http://127.0.0.1:PORT"}, once
// it listens, and ends when its standard input is closed. Refusals go to standard error.
import * as crypto from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';

import 'reflect-metadata'; // @peculiar/x509 asks for it
import { decodeCBOR } from '@levischuck/tiny-cbor';
import * as x509 from '@peculiar/x509';

const stdin = createInterface({ input: process.stdin });
const closed = once(stdin, 'close');
const config = JSON.parse((await once(stdin, 'line'))[0]);

const subtle = crypto.webcrypto.subtle;
x509.cryptoProvider.set(crypto.webcrypto);

class Refusal extends Error {
  constructor(code, reason) {
    super(reason);
    this.code = code;
  }
}
const refuse = (code, reason) => {
  throw new Refusal(code, reason);
};
const sha256 = (...parts) => hash('sha256', ...parts);
const hash = (name, ...parts) => parts.reduce((h, part) => h.update(part), crypto.createHash(name)).digest();
const uint32 = (n) => Buffer.from([n >>> 24, n >>> 16, n >>> 8, n]);
const sized = (bytes) => Buffer.concat([Buffer.from([bytes.length >> 8, bytes.length & 255]), bytes]);

// b64 and b64u decode the one text that bytes have.
function decode(encoding, text, code) {
  const bytes = typeof text === 'string' ? Buffer.from(text, encoding) : undefined;
  if (!bytes || bytes.length === 0 || bytes.toString(encoding) !== text) refuse(code, `no ${encoding}`);
  return bytes;
}
const b64 = (text, code = 'invalid_request') => decode('base64', text, code);
const b64u = (text, code) => decode('base64url', text, code);

// A Reader takes a TPM structure apart.
class Reader {
  constructor(bytes) {
    this.rest = bytes;
  }
  take(n) {
    if (this.rest.length < n) throw new Error('structure is too short');
    const taken = this.rest.subarray(0, n);
    this.rest = this.rest.subarray(n);
    return taken;
  }
  u8() { return this.take(1).readUInt8(); }
  u16() { return this.take(2).readUInt16BE(); }
  u32() { return this.take(4).readUInt32BE(); }
  sized() { return this.take(this.u16()); }
  end() { if (this.rest.length) throw new Error('structure is too long'); }
}

const parse = (bytes, code, read) => {
  try {
    const reader = new Reader(bytes);
    const value = read(reader);
    reader.end();
    return value;
  } catch (err) {
    return refuse(code, err.message);
  }
};

const curves = { 3: { crv: 'P-256', size: 32, hash: 0x000b }, 4: { crv: 'P-384', size: 48, hash: 0x000c } };
const algSHA256 = 0x000b, algNull = 0x0010, algECDSA = 0x0018, algRSASSA = 0x0014;
const attribute = { fixedTPM: 0x2, fixedParent: 0x10, sensitiveDataOrigin: 0x20, restricted: 0x10000, decrypt: 0x20000, sign: 0x40000 };

// readPublic reads a TPMT_PUBLIC of a signing key.
function readPublic(r) {
  const area = { type: r.u16(), nameAlg: r.u16(), attributes: r.u32(), policy: r.sized() };
  if (r.u16() !== algNull) throw new Error('a signing key has no symmetric algorithm');
  area.scheme = r.u16();
  if (area.scheme !== algNull) area.schemeHash = r.u16();
  if (area.type === 0x0023) {
    area.curve = curves[r.u16()];
    if (r.u16() !== algNull) throw new Error('kdf');
    const x = r.sized(), y = r.sized();
    if (!area.curve || x.length > area.curve.size || y.length > area.curve.size) throw new Error('curve');
    const pad = (n) => Buffer.concat([Buffer.alloc(area.curve.size - n.length), n]).toString('base64url');
    area.jwk = { kty: 'EC', crv: area.curve.crv, x: pad(x), y: pad(y) };
  } else if (area.type === 0x0001) {
    area.bits = r.u16();
    const e = r.u32() || 65537;
    area.jwk = { kty: 'RSA', n: r.sized().toString('base64url'), e: uint32(e).subarray(1).toString('base64url') };
  } else {
    throw new Error('neither ECC nor RSA');
  }
  area.has = (name) => (area.attributes & attribute[name]) !== 0;
  area.key = crypto.createPublicKey({ key: area.jwk, format: 'jwk' });
  return area;
}

// readAttest reads a TPMS_ATTEST of TPM2_Certify (0x8017) or TPM2_Quote (0x8018).
function readAttest(r) {
  const attest = { magic: r.u32(), type: r.u16(), signer: r.sized(), extraData: r.sized() };
  r.take(8); // clock
  attest.boot = `${r.u32()}.${r.u32()}`;
  r.u8(); // safe
  r.take(8); // firmwareVersion
  if (attest.type === 0x8017) {
    attest.name = r.sized();
    r.sized(); // qualifiedName
  } else if (attest.type === 0x8018) {
    attest.selections = [];
    for (let n = r.u32(); n > 0; n--) attest.selections.push({ hash: r.u16(), bits: r.take(r.u8()) });
    attest.digest = r.sized();
  } else {
    throw new Error('another kind of statement');
  }
  return attest;
}

// checkStatement verifies a TPMT_SIGNATURE over a TPMS_ATTEST, and its binding.
function checkStatement(ak, type, text, signature, binding) {
  const code = 'invalid_evidence';
  const isECC = ak.asymmetricKeyType === 'ec';
  const raw = parse(signature, code, (r) => {
    if (r.u16() !== (isECC ? algECDSA : algRSASSA) || r.u16() !== algSHA256) throw new Error('signature of another kind');
    if (!isECC) return r.sized();
    const pad = (n) => Buffer.concat([Buffer.alloc(Math.max(0, 32 - n.length)), n]);
    return Buffer.concat([pad(r.sized()), pad(r.sized())]);
  });
  if (!crypto.verify('sha256', text, isECC ? { key: ak, dsaEncoding: 'ieee-p1363' } : ak, raw)) refuse(code, 'signature of the AK');
  const attest = parse(text, code, readAttest);
  if (attest.magic !== 0xff544347 || attest.type !== type) refuse(code, 'not a statement of that kind by a TPM');
  if (!attest.extraData.equals(binding)) refuse(code, 'not bound to challenge and key');
  return attest;
}

// Enrolment.

const makers = config.roots.map((pem) => new crypto.X509Certificate(pem));
const validNow = (c) => Date.parse(c.validFrom) <= Date.now() && Date.now() <= Date.parse(c.validTo);

// leadsToMaker follows issuers, over the maker's certificates and those sent along.
function leadsToMaker(certificate, links, depth = 0) {
  if (!validNow(certificate) || depth > 5) return false;
  return [...makers, ...links].some((issuer) => {
    if (!issuer.ca || !certificate.checkIssued(issuer) || !certificate.verify(issuer.publicKey) || !validNow(issuer)) return false;
    const isAnchor = makers.includes(issuer) && issuer.checkIssued(issuer);
    return isAnchor || leadsToMaker(issuer, links, depth + 1);
  });
}

const kdfa = (H, key, label, u, v, bits) => crypto.createHmac(H, key)
  .update(Buffer.concat([uint32(1), Buffer.from(label + '\0'), u, v, uint32(bits)])).digest().subarray(0, bits / 8);

// makeCredential is TPM2_MakeCredential.
function makeCredential(ek, akName, answer) {
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = ek;
  const kind = type === 'rsa' ? `rsa${details.modulusLength}` : details.namedCurve;
  const known = { rsa2048: ['sha256', 128], prime256v1: ['sha256', 128], secp384r1: ['sha384', 256], rsa3072: ['sha384', 256] }[kind];
  if (!known) refuse('untrusted_tpm', `EK is ${kind}`);
  const [H, A] = known;
  const size = hash(H).length;
  let seed, secret;
  if (type === 'rsa') {
    seed = crypto.randomBytes(size);
    secret = crypto.publicEncrypt({ key: ek, oaepHash: H, oaepLabel: Buffer.from('IDENTITY\0') }, seed);
  } else {
    const ephemeral = crypto.generateKeyPairSync('ec', { namedCurve: kind });
    const z = crypto.diffieHellman({ privateKey: ephemeral.privateKey, publicKey: ek });
    const coordinate = (key, name) => Buffer.from(key.export({ format: 'jwk' })[name], 'base64url');
    const x = coordinate(ephemeral.publicKey, 'x');
    seed = hash(H, uint32(1), z, 'IDENTITY\0', x, coordinate(ek, 'x'));
    secret = Buffer.concat([sized(x), sized(coordinate(ephemeral.publicKey, 'y'))]);
  }
  const none = Buffer.alloc(0);
  const cipher = crypto.createCipheriv(`aes-${A}-cfb`, kdfa(H, seed, 'STORAGE', akName, none, A), Buffer.alloc(16));
  const e = Buffer.concat([cipher.update(sized(answer)), cipher.final()]);
  const mac = crypto.createHmac(H, kdfa(H, seed, 'INTEGRITY', none, none, size * 8)).update(e).update(akName).digest();
  return { credential: Buffer.concat([sized(mac), e]), secret };
}

// What travels in session and challenge is sealed with this key.
const sealing = crypto.randomBytes(32);
function seal(state, seconds) {
  const iv = crypto.randomBytes(12);
  const cipher = crypto.createCipheriv('aes-256-gcm', sealing, iv);
  const text = JSON.stringify({ ...state, expiry: Date.now() + 1000 * seconds });
  return Buffer.concat([iv, cipher.update(text), cipher.final(), cipher.getAuthTag()]).toString('base64url');
}
const used = new Set();
function unseal(sealed, kind, code) {
  try {
    const raw = b64u(sealed, code);
    const decipher = crypto.createDecipheriv('aes-256-gcm', sealing, raw.subarray(0, 12));
    decipher.setAuthTag(raw.subarray(-16));
    const state = JSON.parse(Buffer.concat([decipher.update(raw.subarray(12, -16)), decipher.final()]));
    if (state.kind === kind && Date.now() < state.expiry && !used.has(sealed)) return state;
  } catch { /* as below */ }
  return refuse(code, `${kind}: made up, expired or used`);
}

function attest({ ek, ekCerts, params }) {
  const spki = b64(ek);
  if (!Array.isArray(ekCerts)) refuse('invalid_request', 'ekCerts');
  const certificates = ekCerts.flatMap((der) => {
    try {
      return [new crypto.X509Certificate(b64(der))];
    } catch {
      return []; // what cannot be read is passed over
    }
  });
  const own = certificates.find((c) => c.publicKey.export({ type: 'spki', format: 'der' }).equals(spki));
  if (!own || !own.keyUsage?.includes('2.23.133.8.1')) refuse('untrusted_tpm', 'no EK certificate for ek');
  if (!leadsToMaker(own, certificates)) refuse('untrusted_tpm', 'EK certificate leads to no maker');
  const area = b64(params?.public);
  const ak = parse(area, 'invalid_ak', readPublic);
  const wanted = ['fixedTPM', 'fixedParent', 'sensitiveDataOrigin', 'restricted', 'sign'];
  if (!wanted.every(ak.has) || ak.has('decrypt') || ak.nameAlg !== algSHA256 || ak.schemeHash !== algSHA256) refuse('invalid_ak', 'attributes or scheme');
  if (ak.type === 0x0023 ? ak.scheme !== algECDSA || ak.curve.crv !== 'P-256' : ak.scheme !== algRSASSA || ak.bits < 2048) refuse('invalid_ak', 'kind');
  const answer = crypto.randomBytes(32);
  const { credential, secret } = makeCredential(own.publicKey, Buffer.concat([Buffer.from([0, 0x0b]), sha256(area)]), answer);
  const session = seal({ kind: 'session', ak: ak.jwk, ek: sha256(spki).toString('hex'), answer: answer.toString('base64') }, 300);
  return { session, credential: credential.toString('base64'), secret: secret.toString('base64') };
}

const ecdsa = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
const caKeys = await subtle.generateKey(ecdsa, true, ['sign', 'verify']);
const days = (n) => new Date(Date.now() + n * 24 * 3600 * 1000);
const ca = await x509.X509CertificateGenerator.createSelfSigned({
  name: 'CN=Attestation keys', keys: caKeys, notBefore: days(-1), notAfter: days(3650), signingAlgorithm: ecdsa,
  extensions: [new x509.BasicConstraintsExtension(true, 0, true)],
});

async function secret({ session, secret: answer }) {
  const state = unseal(session, 'session', 'invalid_session');
  const given = b64(answer), right = Buffer.from(state.answer, 'base64');
  if (given.length !== right.length || !crypto.timingSafeEqual(given, right)) refuse('activation_failed', 'wrong secret');
  used.add(session);
  const algorithm = state.ak.kty === 'EC' ? ecdsa : { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' };
  const certificate = await x509.X509CertificateGenerator.create({
    subject: '', issuer: ca.subject, notBefore: days(-1), notAfter: days(30), signingKey: caKeys.privateKey, signingAlgorithm: ecdsa,
    publicKey: await subtle.importKey('jwk', state.ak, algorithm, true, ['verify']),
    extensions: [
      new x509.BasicConstraintsExtension(false),
      new x509.ExtendedKeyUsageExtension(['2.23.133.8.3']),
      new x509.SubjectAlternativeNameExtension([{ type: 'url', value: `urn:ek:${state.ek}` }], true),
    ],
  });
  return { chain: [certificate, ca].map((c) => Buffer.from(c.rawData).toString('base64')) };
}

// Attestation.

const attesterKeys = crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' });
const lifetime = 3600;

function checkKeyStatement(attObj, binding, jwk) {
  const bad = (reason) => refuse('invalid_evidence', reason);
  let object;
  try {
    object = decodeCBOR(Uint8Array.from(b64u(attObj, 'invalid_evidence')));
  } catch (err) {
    bad(`attObj: ${err.message}`);
  }
  const members = (map, ...names) => map instanceof Map && map.size === names.length && names.every((name) => map.has(name));
  if (!members(object, 'fmt', 'attStmt')) bad('members of attObj');
  if (object.get('fmt') !== 'tpm') refuse('unsupported_evidence', 'fmt');
  const statement = object.get('attStmt');
  if (!members(statement, 'ver', 'alg', 'x5c', 'sig', 'certInfo', 'pubArea')) bad('members of attStmt');
  if (statement.get('ver') !== '2.0') refuse('unsupported_evidence', 'ver');

  let leaf;
  try {
    leaf = new crypto.X509Certificate(statement.get('x5c')[0]);
  } catch {
    refuse('ak_not_enrolled', 'x5c');
  }
  const issuer = new crypto.X509Certificate(Buffer.from(ca.rawData));
  if (!leaf.verify(issuer.publicKey) || leaf.ca || !validNow(leaf) || !leaf.keyUsage?.includes('2.23.133.8.3')) refuse('ak_not_enrolled', 'AK certificate');
  const ak = leaf.publicKey;
  if (statement.get('alg') !== (ak.asymmetricKeyType === 'ec' ? -7 : -257)) bad('alg');

  const bytes = (name) => Buffer.from(statement.get(name));
  const certified = checkStatement(ak, 0x8017, bytes('certInfo'), bytes('sig'), binding);
  const area = parse(bytes('pubArea'), 'invalid_evidence', readPublic);
  if (!certified.name.equals(Buffer.concat([Buffer.from([0, 0x0b]), sha256(bytes('pubArea'))]))) bad('pubArea is not what certInfo names');
  if (area.type !== 0x0023 || area.nameAlg !== algSHA256 || !area.has('sign') || area.has('decrypt') || area.has('restricted')) refuse('unsupported_key', 'kind');
  if (area.scheme !== algNull && (area.scheme !== algECDSA || area.schemeHash !== area.curve.hash)) refuse('unsupported_key', 'scheme');
  if (!['fixedTPM', 'fixedParent', 'sensitiveDataOrigin'].every(area.has)) refuse('key_not_protected', 'attributes');
  if (['crv', 'x', 'y'].some((name) => area.jwk[name] !== jwk[name])) bad('the certified key is not the one that signed');
  return { ak, boot: certified.boot };
}

function checkQuote(platform, ak, boot, binding) {
  const bad = (reason) => refuse('invalid_evidence', `quote: ${reason}`);
  const quotes = platform?.quotes ?? [];
  if (quotes.length === 0) refuse('platform_evidence_required', 'no quote');
  if (quotes.length !== 1 || quotes[0].hashAlgo !== 11) bad('number or bank');
  const [{ rawQuote, rawSignature, pcrValues }] = quotes;
  const quoted = checkStatement(ak, 0x8018, b64(rawQuote, 'invalid_evidence'), b64(rawSignature, 'invalid_evidence'), binding);
  if (quoted.boot !== boot) bad('from another boot');
  if (quoted.selections.length !== 1 || quoted.selections[0].hash !== algSHA256) bad('bank');
  const selected = [...quoted.selections[0].bits].flatMap((octet, i) => [0, 1, 2, 3, 4, 5, 6, 7].filter((bit) => octet >> bit & 1).map((bit) => 8 * i + bit));
  const wanted = [...config.pcrs].sort((a, b) => a - b);
  if (String(selected) !== String(wanted) || Object.keys(pcrValues).length !== wanted.length) bad('PCRs');
  const values = wanted.map((pcr) => b64(pcrValues[pcr], 'invalid_evidence'));
  if (values.some((value) => value.length !== 32) || !sha256(...values).equals(quoted.digest)) bad('pcrValues');
  return Object.fromEntries(wanted.map((pcr, i) => [pcr, values[i].toString('hex')]));
}

function clientAttestation({ request }) {
  const bad = (reason) => refuse('invalid_pop', reason);
  const parts = typeof request === 'string' ? request.split('.') : [];
  if (parts.length !== 3) bad('no compact JWS');
  const [rawHeader, rawPayload, signature] = parts.map((part) => b64u(part, 'invalid_pop'));
  let header, payload;
  try {
    [header, payload] = [JSON.parse(rawHeader), JSON.parse(rawPayload)];
  } catch {
    bad('JSON');
  }
  const kind = { ES256: ['P-256', 'sha256'], ES384: ['P-384', 'sha384'] }[header.alg];
  if (header.typ !== 'client-attestation-request+jwt' || header.crit !== undefined) bad('header');
  const { kty, crv, x, y, d } = header.jwk ?? {};
  if (!x || d !== undefined) bad('jwk');
  if (!kind || kty !== 'EC' || crv !== kind[0]) refuse('unsupported_key', 'alg');
  let key;
  try {
    key = crypto.createPublicKey({ key: { kty, crv, x, y }, format: 'jwk' });
  } catch {
    bad('jwk');
  }
  if (!crypto.verify(kind[1], Buffer.from(`${parts[0]}.${parts[1]}`), { key, dsaEncoding: 'ieee-p1363' }, signature)) bad('signature');
  const now = Date.now() / 1000;
  const { iss, aud, iat, exp, nbf = 0, jti, challenge, evidence } = payload;
  if (![iss, jti, challenge].every((s) => typeof s === 'string' && s) || typeof iat !== 'number' || typeof exp !== 'number') bad('a claim is missing');
  if (aud !== url || iat > now + 10 || iat < now - 300 || exp < now - 10 || nbf > now + 10) bad('aud or times');
  if (iss !== config.clientID) refuse('policy_violation', 'client');
  unseal(challenge, 'challenge', 'invalid_challenge');
  if (!evidence) refuse('platform_evidence_required', 'no evidence');

  const thumbprint = sha256(JSON.stringify({ crv, kty, x, y })).toString('base64url');
  const binding = sha256(`${challenge}.${thumbprint}`);
  const { ak, boot } = checkKeyStatement(evidence.attObj, binding, header.jwk);
  const pcrs = checkQuote(evidence.tpmAttestation, ak, boot, binding);
  const release = config.software.find((r) => Object.entries(r.pcrs).every(([pcr, value]) => pcrs[pcr] === value));
  if (!release) refuse('policy_violation', 'software');
  if (used.has(challenge)) refuse('invalid_challenge', 'used');
  used.add(challenge);

  const issued = Math.floor(now);
  const claims = {
    sub: iss, iat: issued, exp: issued + lifetime, cnf: { jwk: { alg: header.alg, crv, kty, x, y } },
    eat_profile: 'https://github.com/instancekey/instancekey#client-attestation-1', tpm_endorsement: 'certificate',
    swname: release.swname, swversion: [release.swversion], measres: [['tpm-measured-boot', [['software', 'success']]]],
  };
  const input = [{ typ: 'oauth-client-attestation+jwt', alg: 'ES256', kid: 'foreign' }, claims]
    .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.');
  const made = crypto.sign('sha256', Buffer.from(input), { key: attesterKeys.privateKey, dsaEncoding: 'ieee-p1363' });
  return { client_attestation: `${input}.${made.toString('base64url')}`, expires_in: lifetime };
}

// HTTP.

const endpoints = {
  'POST /tpm/attest': attest,
  'POST /tpm/secret': secret,
  'POST /challenge': () => ({ challenge: seal({ kind: 'challenge' }, 300), expires_in: 300, pcrs: config.pcrs }),
  'POST /client-attestation': clientAttestation,
  'GET /jwks': () => ({ keys: [{ ...attesterKeys.publicKey.export({ format: 'jwk' }), kid: 'foreign', alg: 'ES256', use: 'sig' }] }),
};

const server = createServer(async (req, res) => {
  let status = 200, answer;
  try {
    const endpoint = endpoints[`${req.method} ${req.url}`];
    const parts = [];
    for await (const part of req) parts.push(part);
    const body = Buffer.concat(parts);
    if (body.length > 1 << 20) refuse('invalid_request', 'size');
    let message;
    if (body.length) {
      if (req.headers['content-type'] !== 'application/json') refuse('invalid_request', 'Content-Type');
      try {
        message = JSON.parse(body);
      } catch {
        refuse('invalid_request', 'JSON');
      }
    }
    answer = await endpoint(message ?? {});
  } catch (err) {
    if (!(err instanceof Refusal)) console.error(err);
    else console.error(`${req.url}: ${err.code}: ${err.message}`);
    status = { undefined: 500, policy_violation: 403 }[err.code] ?? 400;
    answer = { error: err.code ?? 'server_error' };
  }
  res.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store' });
  res.end(JSON.stringify(answer));
});
server.listen(0, '127.0.0.1');
await once(server, 'listening');
const url = `http://127.0.0.1:${server.address().port}`;
console.log(JSON.stringify({ url }));
await closed;
process.exit(0);
