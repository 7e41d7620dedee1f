#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# @simplewebauthn/server 14.0.3 reads the scheme of a TPMT_PUBLIC in a "tpm"
# attestation statement as two bytes. TPM 2.0 Part 2, 12.2.3.6 (TPMS_ECC_PARMS) gives
# every scheme but null its details, two bytes more for ECDSA: the hash. So of a valid
# public area of an ECDSA key it takes the hash for the curve, and everything behind it
# is shifted; its verifier then refuses the statement. A device whose keys are to be
# verified with it has to create them with the scheme null and to name the scheme in
# TPM2_Sign.
#
# Seen: with the scheme null curveID is TPM_ECC_NIST_P256 and unique has 64 bytes; with
# ECDSA and SHA-256, and all else the same, neither. Fails if that changes.
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --ignore-scripts @simplewebauthn/server@14.0.3
cat >try.mjs <<'JS'
import { readFileSync } from 'node:fs';
const home = './node_modules/@simplewebauthn/server';
const { parsePubArea } = await import(`${home}/esm/registration/verifications/tpm/parsePubArea.js`);
console.log('version', JSON.parse(readFileSync(`${home}/package.json`)).version);
// TPM_ALG_ECC, SHA-256, fixedTPM|fixedParent|sensitiveDataOrigin|userWithAuth|noDA|sign,
// no policy, symmetric null; scheme; P-256, kdf null; the point G.
const head = '0023' + '000b' + '00040472' + '0000' + '0010', tail = '0003' + '0010' +
  '0020' + '6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296' +
  '0020' + '4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5';
const read = (scheme) => {
  const { parameters, unique } = parsePubArea(Uint8Array.from(Buffer.from(head + scheme + tail, 'hex')));
  const seen = `curveID ${parameters.ecc.curveID}, unique of ${unique.length} bytes`;
  console.log(`scheme ${scheme}: ${seen}`);
  return seen;
};
const good = 'curveID TPM_ECC_NIST_P256, unique of 64 bytes';
if (read('0010') !== good || read('0018000b') === good) process.exit(1);
console.log('as described');
JS
node try.mjs
