// SPDX-License-Identifier: Apache-2.0

// Verifiers of Client Attestations that this project did not write. The interop
// tests start it; each line of JSON on standard input is a case:
//
//   verifier     "openid4vc", "io-wallet 1.0" or "io-wallet 1.3"
//   attestation  the Client Attestation JWT
//   pop          the Client Attestation PoP JWT
//   issuer       the authorization server's issuer identifier
//   attesterKey  public JWK of the Client Attester, for attestations without x5c
//   anchor       trust anchor of x5c (PEM)
//
// and is answered with one line, {"error":"why it was refused"}, empty if it was
// not. It ends when its standard input is closed.
import { createPublicKey, verify, X509Certificate } from 'node:crypto';
import { createInterface } from 'node:readline';

import { Oauth2AuthorizationServer } from '@openid4vc/oauth2';
import { verifyClientAttestation } from '@pagopa/io-wallet-oauth2';
import { IoWalletSdkConfig, ItWalletSpecsVersion } from '@pagopa/io-wallet-utils';

// Both leave signatures, and whom to trust, to a function of the caller's.
function callbacks({ attesterKey, anchor }) {
  const keyOf = (signer) => {
    switch (signer.method) {
      case 'jwk': // of cnf
        return createPublicKey({ key: signer.publicJwk, format: 'jwk' });
      case 'x5c': {
        const chain = [...signer.x5c.map((der) => new X509Certificate(Buffer.from(der, 'base64'))), new X509Certificate(anchor)];
        for (const [i, cert] of chain.slice(0, -1).entries()) {
          if (!cert.checkIssued(chain[i + 1]) || !cert.verify(chain[i + 1].publicKey)) throw new Error('x5c is no chain to the anchor');
        }
        return chain[0].publicKey;
      }
      default: // by kid
        if (signer.kid !== attesterKey.kid) throw new Error(`unknown kid ${signer.kid}`);
        return createPublicKey({ key: attesterKey, format: 'jwk' });
    }
  };
  return {
    verifyJwt: async (signer, { compact }) => {
      if (signer.alg !== 'ES256') throw new Error(`alg ${signer.alg}`);
      const [header, payload, signature] = compact.split('.');
      const key = keyOf(signer);
      const verified = verify('sha256', Buffer.from(`${header}.${payload}`), { key, dsaEncoding: 'ieee-p1363' }, Buffer.from(signature, 'base64url'));
      return verified ? { verified, signerJwk: key.export({ format: 'jwk' }) } : { verified };
    },
  };
}

const ioWallet = (itWalletSpecsVersion) => (c) => verifyClientAttestation({
  authorizationServerMetadata: { issuer: c.issuer },
  callbacks: callbacks(c),
  clientAttestation: { walletAttestationJwt: c.attestation, clientAttestationPopJwt: c.pop },
  config: new IoWalletSdkConfig({ itWalletSpecsVersion }),
});

const verifiers = {
  openid4vc: (c) => new Oauth2AuthorizationServer({ callbacks: callbacks(c) }).verifyClientAttestation({
    authorizationServer: c.issuer, clientAttestationJwt: c.attestation, clientAttestationPopJwt: c.pop,
  }),
  'io-wallet 1.0': ioWallet(ItWalletSpecsVersion.V1_0),
  'io-wallet 1.3': ioWallet(ItWalletSpecsVersion.V1_3),
};

for await (const line of createInterface({ input: process.stdin })) {
  const c = JSON.parse(line);
  let error = '';
  try {
    await verifiers[c.verifier](c);
  } catch (e) {
    error = [e, e.cause, e.cause?.cause].filter(Boolean).map((x) => x.errorResponse?.error_description ?? x.message).join(': ') || String(e);
  }
  console.log(JSON.stringify({ error }));
}
