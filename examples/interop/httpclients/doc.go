// SPDX-License-Identifier: Apache-2.0

// Package httpclients tests package client under the libraries that programs put around
// an http.Client, or into one: go-retryablehttp, otelhttp and go-oidc. It is a module of
// its own, so that nobody else has these among their dependencies.
package httpclients
