module github.com/instancekey/instancekey

go 1.26.0

// What each direct dependency is for stands beside it. Whoever uses a package of this
// module has them all in his module graph, so what a tool alone needs is required by a
// module of the tool's own, as examples/otel is. instancectl and quickstart are in this
// module, since they are run from its root.
require (
	github.com/foxboron/go-tpm-keyfiles v0.0.0-20260902202739-8c9c2d1005f4 // tpm: the form of key files; it has no tagged release
	github.com/fxamacker/cbor/v2 v2.10.0 // tpm, reference attester: evidence
	github.com/go-jose/go-jose/v4 v4.1.9 // everything: JWS and JWK
	github.com/google/go-attestation v0.6.4 // reference attester: boot logs
	github.com/google/go-tpm v0.9.9-0.20260124013517-8f8f42cba0de // tpm: TPM commands; go-tpm-keyfiles requires this commit, and the newest release, v0.9.8, is older
	github.com/google/go-tpm-tools v0.4.11 // tests, instancectl, quickstart: the Microsoft simulator (cgo)
	golang.org/x/crypto v0.59.0 // tpm, reference attester: ASN.1 (cryptobyte), sealed sessions
	golang.org/x/oauth2 v0.38.0 // client: grants
	golang.org/x/sys v0.50.0 // tpm: Windows and Linux
	golang.org/x/term v0.48.0 // instancectl: whether it writes to a terminal
	rsc.io/qr v0.2.0 // instancectl: QR codes; it requires nothing itself
)

require github.com/x448/float16 v0.8.4 // indirect
