module github.com/instancekey/instancekey

go 1.26.0

require (
	github.com/foxboron/go-tpm-keyfiles v0.0.0-20260902202739-8c9c2d1005f4
	github.com/fxamacker/cbor/v2 v2.9.6
	github.com/go-jose/go-jose/v4 v4.1.8
	github.com/google/go-attestation v0.6.4
	github.com/google/go-tpm v0.9.9-0.20260124013517-8f8f42cba0de
	golang.org/x/crypto v0.51.0
	golang.org/x/oauth2 v0.37.0
	golang.org/x/sys v0.49.0
)

require github.com/x448/float16 v0.8.4 // indirect

// Tests and examples only: the Microsoft simulator (cgo).
require github.com/google/go-tpm-tools v0.4.11
