// SPDX-License-Identifier: Apache-2.0

// An authorization server that this project did not write: npm's oidc-provider
// with attestation-based client authentication switched on, on a free loopback
// port. The interop tests start it; nothing here is fit for production. To start
// it by hand, run "npm ci" in this folder first.
//
// One line of JSON on standard input configures it:
//
//   attesterKey  public JWK of the Client Attester it trusts (required)
//   version      version of oidc-provider, see drafts below (default: 9.13.3)
//
// It answers with one line on standard output, {"issuer":"http://127.0.0.1:PORT"},
// once it listens, and ends when its standard input is closed. Warnings and the
// reason of every refusal go to standard error.
//
// Its clients have the scopes read, write, openid and offline_access:
//
//   abca-client       authenticates with attestation and PoP JWT
//   abca-dpop-client  with attestation and DPoP proof, the combined mode
//                     (default version only)
//
// GET /__counts answers with the requests received so far, {"POST /token":2,…};
// itself it is not counted.
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';

// The draft of attestation-based client authentication that each version
// implements; it has to be acknowledged by name.
const drafts = { '9.13.3': 'draft-12', '9.12.2': 'draft-10', '9.8.6': 'draft-06' };
const current = '9.13.3';

const stdin = createInterface({ input: process.stdin });
const closed = once(stdin, 'close');
const line = await Promise.race([once(stdin, 'line'), closed]);
const { attesterKey, version = current } = JSON.parse(line[0] ?? '{}');
if (!attesterKey) throw new Error('attesterKey is missing');
if (!Object.hasOwn(drafts, version)) throw new Error(`no oidc-provider ${version} here`);

const { Provider } = await import(version === current ? 'oidc-provider' : `oidc-provider-${version}`);

// The issuer's port is part of its configuration, so the port comes first.
const server = createServer();
server.listen(0, '127.0.0.1');
await once(server, 'listening');
const issuer = `http://127.0.0.1:${server.address().port}`;

const client = {
  grant_types: [
    'authorization_code',
    'client_credentials',
    'refresh_token',
    'urn:ietf:params:oauth:grant-type:device_code',
  ],
  redirect_uris: ['http://127.0.0.1/callback'],
  application_type: 'native',
  id_token_signed_response_alg: 'ES256',
  scope: 'openid offline_access read write',
};
const clients = [
  { ...client, client_id: 'abca-client', token_endpoint_auth_method: 'attest_jwt_client_auth' },
];
const clientAuthMethods = ['attest_jwt_client_auth'];
if (version === current) { // older ones have no combined mode
  clients.push({ ...client, client_id: 'abca-dpop-client', token_endpoint_auth_method: 'attest_jwt_client_auth_dpop' });
  clientAuthMethods.push('attest_jwt_client_auth_dpop');
}

const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });

const provider = new Provider(issuer, {
  clients,
  clientAuthMethods,
  scopes: ['openid', 'offline_access', 'read', 'write'],
  jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), alg: 'ES256', use: 'sig' }] },
  cookies: { keys: [randomBytes(16).toString('hex')] },
  ttl: { AccessToken: 600, ClientCredentials: 600, DeviceCode: 600, Grant: 3600, Interaction: 600, RefreshToken: 3600, Session: 3600 },
  issueRefreshToken: async (ctx, { grantTypes }) => grantTypes.includes('refresh_token'),
  features: {
    attestClientAuth: {
      enabled: true,
      ack: drafts[version],
      challengeSecret: randomBytes(32),
      // Older versions pass other arguments; with one trusted attester none is needed.
      getAttestationSignaturePublicKey: async () => attesterKey,
      assertAttestationJwtAndPop: async () => {},
    },
    clientCredentials: { enabled: true },
    deviceFlow: { enabled: true },
    devInteractions: { enabled: true },
    dPoP: { enabled: true, nonceSecret: randomBytes(32) },
    introspection: { enabled: true },
    pushedAuthorizationRequests: { enabled: true },
    revocation: { enabled: true },
  },
});
for (const event of ['grant.error', 'server_error', 'pushed_authorization_request.error', 'challenge.error']) {
  provider.on(event, (ctx, err) => {
    console.error(`${event}: ${err.message}: ${err.error_description ?? ''} ${err.cause ?? err.error_detail ?? ''}`);
  });
}

const counts = {};
const handle = provider.callback();
server.on('request', (req, res) => {
  const [path] = req.url.split('?', 1);
  if (path === '/__counts') {
    res.setHeader('content-type', 'application/json');
    res.end(JSON.stringify(counts));
    return;
  }
  const request = `${req.method} ${path}`;
  counts[request] = (counts[request] ?? 0) + 1;
  handle(req, res);
});

console.log(JSON.stringify({ issuer }));
await closed;
process.exit(0);
