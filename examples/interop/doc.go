// Package interop tests the module with authorization servers that it did not
// bring itself. So far that is npm's oidc-provider in several versions, which
// server.mjs starts; package-lock.json pins them.
//
// The tests need Node.js and npm ("make test" sees to that), and the first run
// installs the packages into node_modules. Without Node.js they are skipped, or
// fail where the environment variable CI is not empty.
package interop
