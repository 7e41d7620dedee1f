// SPDX-License-Identifier: Apache-2.0

// Package interop tests the module with servers and libraries that it did not bring
// itself; README.md says what was tried with which settings.
//
//   - npm's oidc-provider in several versions, which server.mjs starts
//   - Keycloak, which .ci/keycloak fetches; keycloak/ has the files of its realm
//   - verifiers of attestations in JavaScript and Python: verifiers.mjs, verifiers.py
//   - @simplewebauthn/server (webauthn.mjs); the module in webauthn asks go-webauthn
//   - a Client Attester (attester.mjs) and a device (device.mjs) in another language,
//     which show that examples/attester/PROTOCOL.md is enough
//
// package-lock.json and requirements.txt pin what they need.
//
// The tests need Node.js with npm and Python ("make test" sees to that), and the
// first run installs the packages into node_modules and .venv. Without them they are
// skipped, or fail where the environment variable CI is not empty. Those with
// Keycloak run only where KEYCLOAK_HOME says where it is ("make interop-keycloak").
package interop
