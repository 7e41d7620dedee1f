#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A JWK's "alg" is optional (RFC 7517, section 4.4), and no draft of attestation-based
# client authentication asks for it in "cnf.jwk"; the examples there have none. One
# would expect the curve of an EC key to be enough, as it is for Keycloak's own DPoP
# proofs. Keycloak's feature client-auth-abca refuses a client whose attestation has an
# EC key without "alg" there, and takes the same client with it.
#
# Needs java 17 or newer, mvn, tar, curl and node 18 or newer. Seen with Keycloak 26.7.3:
#   without alg: 400 invalid_client_attestation, Key with algorithm null and type EC is incorrect for provider algorithm ES256
#   with alg: 200
set -euo pipefail
dir=$(mktemp -d)
server=
stop() {
	if [ -n "$server" ]; then kill "$server" 2>/dev/null && wait "$server" || true; fi
	rm -rf "$dir"
}
trap stop EXIT
cd "$dir"
mvn -B -q org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy \
	-Dartifact=org.keycloak:keycloak-quarkus-dist:26.7.3:tar.gz -DoutputDirectory=. >/dev/null
tar -xzf keycloak-quarkus-dist-26.7.3.tar.gz
export KC_BOOTSTRAP_ADMIN_USERNAME=admin KC_BOOTSTRAP_ADMIN_PASSWORD=admin JAVA_OPTS_APPEND=-XX:TieredStopAtLevel=1
port=18473
keycloak-26.7.3/bin/kc.sh start-dev --db=dev-mem --features=client-auth-abca --http-host=127.0.0.1 --http-port=$port >log 2>&1 &
server=$!
until curl -sf "http://127.0.0.1:$port/realms/master" >/dev/null; do
	kill -0 "$server" || { tail log; exit 1; }
	sleep 2
done
cat >try.mjs <<'JS'
import { generateKeyPairSync, randomUUID, sign } from 'node:crypto';

const base = process.argv[2];
const form = (fields) => ({ method: 'POST', body: new URLSearchParams(fields) });
const { access_token } = await (await fetch(`${base}/realms/master/protocol/openid-connect/token`,
  form({ grant_type: 'password', client_id: 'admin-cli', username: 'admin', password: 'admin' }))).json();
const create = async (path, content) => {
  const resp = await fetch(`${base}/admin/realms${path}`, {
    method: 'POST', body: JSON.stringify(content),
    headers: { 'content-type': 'application/json', authorization: `Bearer ${access_token}` },
  });
  if (resp.status !== 201) throw new Error(`${path}: ${resp.status} ${await resp.text()}`);
};

const key = () => generateKeyPairSync('ec', { namedCurve: 'P-256' });
const attester = key();
const instance = key();
const jwk = (k, more) => ({ ...k.publicKey.export({ format: 'jwk' }), ...more });
await create('', { realm: 'r', enabled: true });
await create('/r/identity-provider/instances', {
  alias: 'attester', providerId: 'default-trust', enabled: true,
  config: { publicKeySignatureVerifier: JSON.stringify({ keys: [jwk(attester, { kid: '1', alg: 'ES256', use: 'sig' })] }) },
});
await create('/r/clients', {
  clientId: 'c', enabled: true, serviceAccountsEnabled: true, clientAuthenticatorType: 'attestation-based',
  attributes: { attester_trust_idps: 'attester' },
});

const b64 = (v) => Buffer.from(JSON.stringify(v)).toString('base64url');
const jwt = (header, payload, { privateKey }) => {
  const input = `${b64({ alg: 'ES256', ...header })}.${b64(payload)}`;
  return `${input}.${sign('sha256', Buffer.from(input), { key: privateKey, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
};
for (const [name, more] of [['without alg', {}], ['with alg', { alg: 'ES256' }]]) {
  const now = Math.floor(Date.now() / 1000);
  const resp = await fetch(`${base}/realms/r/protocol/openid-connect/token`, {
    ...form({ grant_type: 'client_credentials', client_id: 'c' }),
    headers: {
      'OAuth-Client-Attestation': jwt({ typ: 'oauth-client-attestation+jwt', kid: '1' },
        { iss: 'attester', sub: 'c', iat: now, exp: now + 300, cnf: { jwk: jwk(instance, more) } }, attester),
      'OAuth-Client-Attestation-PoP': jwt({ typ: 'oauth-client-attestation-pop+jwt' },
        { iss: 'c', aud: `${base}/realms/r`, jti: randomUUID(), iat: now }, instance),
    },
  });
  const { error, error_description } = await resp.json();
  console.log(`${name}: ${[resp.status, error].filter(Boolean).join(' ')}${error ? `, ${error_description}` : ''}`);
}
JS
node try.mjs "http://127.0.0.1:$port" | tee out
grep -qx 'without alg: 400 invalid_client_attestation, Key with algorithm null and type EC is incorrect for provider algorithm ES256' out
grep -qx 'with alg: 200' out
