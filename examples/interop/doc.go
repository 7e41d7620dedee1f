// Package interop tests the module with servers and libraries that it did not bring
// itself: npm's oidc-provider in several versions, which server.mjs starts, and
// @simplewebauthn/server (webauthn.mjs); package-lock.json pins them. The module in
// webauthn asks go-webauthn. A Client Attester (attester.mjs) and a device
// (device.mjs) in another language show that examples/attester/PROTOCOL.md is enough.
//
// The tests need Node.js and npm ("make test" sees to that), and the first run
// installs the packages into node_modules. Without Node.js they are skipped, or
// fail where the environment variable CI is not empty.
package interop
