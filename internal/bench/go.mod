module github.com/instancekey/instancekey/internal/bench

go 1.26.0

require (
	github.com/foxboron/go-tpm-keyfiles v0.0.0-20260902202739-8c9c2d1005f4
	github.com/go-jose/go-jose/v4 v4.1.9
	github.com/google/go-attestation v0.6.4
	github.com/google/go-tpm v0.9.9-0.20260124013517-8f8f42cba0de
	github.com/instancekey/instancekey v0.0.0
	go.step.sm/crypto v0.92.0
	golang.org/x/oauth2 v0.38.0
)

require (
	github.com/google/btree v1.0.1 // indirect
	github.com/google/certificate-transparency-go v1.1.2 // indirect
	github.com/google/go-tpm-tools v0.4.11 // indirect
	github.com/google/go-tspi v0.3.0 // indirect
	github.com/peterbourgon/diskv/v3 v3.0.1 // indirect
	github.com/schollz/jsonstore v1.1.0 // indirect
	github.com/smallstep/go-attestation v0.4.4-0.20260814222900-a849f4e2cd68 // indirect
	golang.org/x/crypto v0.59.0 // indirect
	golang.org/x/sys v0.50.0 // indirect
)

replace github.com/instancekey/instancekey => ../..
