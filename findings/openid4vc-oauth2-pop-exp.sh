#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# OpenID4VCI 1.0 points to draft-ietf-oauth-attestation-based-client-auth-07, whose
# PoP JWT has iss, aud, jti, iat and, where the server gave one, "challenge"; "exp" was
# removed in -06. One would expect the verifier
# of npm's @openid4vc/oauth2, which OpenID4VCI servers are built on, to take such a JWT.
# It demands "exp" as drafts up to -05 had it; and what does not fit its schema is no
# invalid_client but a server_error, status 500, whose description names no claim.
#
# Needs node and npm. Seen with @openid4vc/oauth2 0.4.6, Node.js 20.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init -y >/dev/null
npm install --silent --no-audit --no-fund @openid4vc/oauth2@0.4.6
cat >try.mjs <<'JS'
import { createPublicKey, generateKeyPairSync, randomUUID, sign, verify } from 'node:crypto';
import { Oauth2AuthorizationServer } from '@openid4vc/oauth2';

const key = () => generateKeyPairSync('ec', { namedCurve: 'P-256' });
const b64 = (v) => Buffer.from(typeof v === 'string' ? v : JSON.stringify(v)).toString('base64url');
const jwt = (header, payload, { privateKey }) => {
  const input = `${b64({ alg: 'ES256', ...header })}.${b64(payload)}`;
  return `${input}.${sign('sha256', Buffer.from(input), { key: privateKey, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
};
const attester = key();
const instance = key();
const now = Math.floor(Date.now() / 1000);
const issuer = 'https://as.example.com';
const clientAttestationJwt = jwt({ typ: 'oauth-client-attestation+jwt', kid: '1' }, {
  iss: 'https://attester.example.com', sub: 'client', iat: now, exp: now + 300, cnf: { jwk: instance.publicKey.export({ format: 'jwk' }) },
}, attester);
const pop = (extra) => jwt({ typ: 'oauth-client-attestation-pop+jwt' }, { iss: 'client', aud: issuer, jti: randomUUID(), iat: now, ...extra }, instance);
const callbacks = {
  verifyJwt: async (signer, { compact }) => {
    const [header, payload, signature] = compact.split('.');
    const k = signer.method === 'jwk' ? createPublicKey({ key: signer.publicJwk, format: 'jwk' }) : attester.publicKey;
    const verified = verify('sha256', Buffer.from(`${header}.${payload}`), { key: k, dsaEncoding: 'ieee-p1363' }, Buffer.from(signature, 'base64url'));
    return { verified, signerJwk: k.export({ format: 'jwk' }) };
  },
};
const server = new Oauth2AuthorizationServer({ callbacks });
const judge = async (name, clientAttestationPopJwt) => {
  try {
    await server.verifyClientAttestation({ authorizationServer: issuer, clientAttestationJwt, clientAttestationPopJwt });
    console.log(`${name}: taken`);
  } catch (e) {
    console.log(`${name}: ${e.status} ${e.errorResponse?.error}, ${e.errorResponse?.error_description}; inside: ${e.cause?.message.replace(/\s+/g, ' ')}`);
  }
};
await judge('as -07 has it', pop({ challenge: 'c-1' }));
await judge('with exp', pop({ challenge: 'c-1', exp: now + 60 }));
JS
node try.mjs | tee out
grep -q '^as -07 has it: 500 server_error, .*; inside: .*"exp"' out
grep -qx 'with exp: taken' out
