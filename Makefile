# SPDX-License-Identifier: Apache-2.0

# demo and test are all that is needed; both install what is missing first.

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK = golang.org/x/vuln/cmd/govulncheck@v1.9.0

# Modules of their own, for dependencies that nobody else needs.
NESTED = examples/otel examples/interop/webauthn examples/interop/httpclients internal/bench

# What imports neither tests nor examples builds without cgo for all of these, and
# everything for Windows.
PLATFORMS = linux/amd64 linux/arm64 linux/arm linux/riscv64 windows/amd64 windows/arm64

.PHONY: demo bench figure figure-test test interop-old interop-keycloak kernel windows device-vm device-firmware lint cross

# A client instance creates its key in a simulated TPM, is attested, and gets a token.
demo:
	@.ci/prerequisites cgo
	CGO_ENABLED=1 go run ./examples/quickstart -store simulator

# The figure of the README, drawn from a run.
figure:
	@.ci/prerequisites cgo
	CGO_ENABLED=1 go run ./examples/quickstart -store simulator -report examples/quickstart/figure.svg >/dev/null
	chmod 644 examples/quickstart/figure.svg

# Latency, commands, requests and growth on a TPM that is slow like a chip, beside others'
# packages; latency at npm's oidc-provider; the size of a program. The tables, and the plots of
# the README. Six minutes, on a machine with nothing else to do.
bench:
	@.ci/prerequisites cgo swtpm node
	cd internal/bench && BENCH=1 CGO_ENABLED=1 go test -count=1 -v .
	BENCH=1 CGO_ENABLED=1 go test -count=1 -v -run '^TestOIDCProviderSignAhead$$' ./examples/interop
	go test -count=1 -v ./internal/size

# What only computes: with the race detector in it, tests take a third longer. In all other
# packages, Go's and others', the detector looks on. None of these may instantiate generic types
# of Go's that synchronize, as encoding/json does with those behind sync.Map: the linker takes
# one copy for all, and the detector would see races where there are none.
PURE = $(addprefix crypto/internal/fips140/,aes/... bigmod edwards25519/... mlkem nistec/... sha256 sha3 sha512) \
	vendor/golang.org/x/crypto/cryptobyte/... golang.org/x/crypto/cryptobyte/... encoding/base64 encoding/hex \
	github.com/go-jose/go-jose/v4/json regexp/... strconv unicode/utf8

# For tests: lint vets, and without a debugger's tables some fifty programs are linked in
# half the time. Nothing here does anything with unsafe pointers but on Windows.
CHECKS = -d=checkptr=0
RACE = -race -gcflags=all=$(CHECKS) $(foreach package,$(PURE),'-gcflags=$(package)=$(CHECKS) -race=false')
FAST = $(RACE) -vet=off -ldflags='-s -w'

# Everything, with the race detector, on both TPMs, and with the servers and verifiers of examples/interop but Keycloak.
# With a non-empty CI in the environment nothing is skipped: what cannot run fails.
# What several modules need is compiled before they are tested at the same time.
test:
	@.ci/prerequisites cgo swtpm strace node python shells
	@CGO_ENABLED=1 go build $(RACE) ./...
	@$(MAKE) --no-print-directory -j2 test-main test-nested

# The parts of test. A program with the race detector would sleep for a second before it
# exits. Tests, and the programs that build them, collect garbage seldom: they end soon.
# Some tests wait for other programs, so there is one more at a time than there are
# processors. Package tpm takes longest, so it begins first. Allocations are not counted with
# the race detector.
.PHONY: test-main test-nested
test-main test-nested: export GORACE := atexit_sleep_ms=0 $(GORACE)
test test-main test-nested: export GOGC := $(or $(GOGC),400)
test-main test-nested: export CGO_ENABLED := 1

test-main:
	@go test -count=1 -timeout 30m -p $$(($$(getconf _NPROCESSORS_ONLN) + 1)) $(FAST) $(TESTFLAGS) ./tpm ./...

# What each says is printed at once, and not into the middle of what test-main prints.
test-nested:
	@at_once() { said=$$("$$@" 2>&1) && status=0 || status=$$?; echo "$$said"; return $$status; }; \
	for m in $(NESTED); do \
		(cd $$m && at_once go test -count=1 -p 1 $(FAST) $(TESTFLAGS) ./...) || exit 1; \
	done; \
	at_once go test -count=1 $(TESTFLAGS) -run '^TestAllocations$$' ./client

# Only the older versions of npm's oidc-provider, which speak older drafts.
interop-old:
	@.ci/prerequisites cgo node
	CGO_ENABLED=1 go test -count=1 -v -run '^TestOIDCProviderOlder$$' ./examples/interop

# A Keycloak with its feature client-auth-abca, which Maven fetches the first time:
# a minute or two, and two more then.
interop-keycloak:
	@.ci/prerequisites cgo swtpm
	KEYCLOAK_HOME=$$(.ci/keycloak) && export KEYCLOAK_HOME && \
		CGO_ENABLED=1 go test -count=1 $(TESTFLAGS) -run '^TestKeycloak' ./examples/interop

# Package tpm on a Linux kernel and its resource manager, in QEMU: a minute or two.
kernel:
	@.ci/prerequisites swtpm qemu
	LINUX_KERNEL=$$(.ci/kernel) CGO_ENABLED=0 go test -count=1 -v -timeout 25m -tags hardware -run '^TestLinuxKernel$$' ./tpm

# The page of a report in a real browser: by keyboard, on a phone's width, in the dark and
# in print. FIGURE_SCREENSHOTS is a folder for what it looked like.
figure-test:
	@.ci/prerequisites cgo
	@looked=$$(.ci/browser) && FIGURE_BROWSER=$$(echo "$$looked" | head -n 1) && FIGURE_NODE=$$(echo "$$looked" | tail -n 1) && \
		export FIGURE_BROWSER FIGURE_NODE && \
		CGO_ENABLED=1 go test -count=1 $(TESTFLAGS) -run '^TestPage$$' ./examples/quickstart

# The tests on Windows: in Wine, which debootstrap fetches the first time, with swtpm
# behind the TPM Base Services: three or four minutes, and two more then.
windows:
	@.ci/prerequisites swtpm wine
	WINE_ROOT=$$(.ci/wine) && export WINE_ROOT && \
		CGO_ENABLED=0 go test -count=1 -v $(TESTFLAGS) -timeout 20m -run '^TestWindows$$' ./internal/winetest

# The device example on a Debian with systemd, in QEMU: eight minutes, and some more the
# first time, which has to be root's. DEVICE_VM_SUITE is another release.
device-vm:
	@.ci/prerequisites swtpm qemu debootstrap
	DEVICE_VM=$$(.ci/device-vm) && export DEVICE_VM && \
		CGO_ENABLED=0 go test -count=1 -v -timeout 20m -tags devicevm -run '^TestDeviceVM$$' ./examples/device

# The firmware's log of a device with Secure Boot, in QEMU with OVMF, at the reference attester: a
# unified kernel image with own keys, and shim and GRUB with Microsoft's and Debian's.
device-firmware:
	@.ci/prerequisites swtpm qemu ovmf
	LINUX_KERNEL=$$(.ci/kernel) && export LINUX_KERNEL && \
		CGO_ENABLED=0 go test -count=1 -v -timeout 20m -tags devicevm -run '^TestDeviceFirmware$$' ./examples/device

lint:
	@.ci/prerequisites cgo
	@unformatted=$$($$(go env GOROOT)/bin/gofmt -l .) && \
		if [ -n "$$unformatted" ]; then echo "gofmt -w wants to change:" $$unformatted; exit 1; fi
	go mod tidy -diff
	go vet ./...
	go vet -tags hardware ./tpm
	go vet -tags soak ./internal/soak
	GOOS=linux go vet -tags devicevm ./examples/device
	go run $(STATICCHECK) ./...
	@for m in $(NESTED); do (cd $$m && go mod tidy -diff && go vet ./... && go run $(STATICCHECK) ./...) || exit 1; done

cross:
	@for p in $(PLATFORMS); do \
		echo "build for $$p"; \
		CGO_ENABLED=0 GOOS=$${p%/*} GOARCH=$${p#*/} go build ./client ./tpm ./softkey || exit 1; \
	done
	CGO_ENABLED=0 GOOS=linux GOARCH=arm go vet ./...
	CGO_ENABLED=0 GOOS=windows go vet ./...
	CGO_ENABLED=0 GOOS=windows go vet -tags hardware,soak,devicevm ./tpm ./internal/soak ./examples/device
	@for m in $(NESTED); do (cd $$m && CGO_ENABLED=0 GOOS=windows go vet ./...) || exit 1; done
	CGO_ENABLED=0 GOOS=windows GOARCH=arm64 go build ./examples/...

# What follows is outside of .ci/run.
.PHONY: api fuzz mutants newest soak vulnerabilities

# What has changed in the API since the last release.
api:
	@.ci/api

# Each fuzz target for a minute; FUZZ="10s Metadata" runs some of them for 10 seconds.
fuzz:
	@.ci/prerequisites cgo swtpm
	@CGO_ENABLED=1 .ci/fuzz $(FUZZ)

# Breaks single lines, one at a time: the test that each is listed with has to notice.
# MUTANTS="-only pool.go" tries some.
mutants:
	@.ci/prerequisites cgo
	@CGO_ENABLED=1 go run ./internal/mutants $(MUTANTS)

# Clients at services on which everything goes wrong, for a minute; SOAK="-for 10m -seed 1".
# SOAK="-leak 500" has to fail: each call leaves so many bytes behind.
soak:
	@.ci/prerequisites cgo
	CGO_ENABLED=1 go test -race -tags soak -count=1 -v -timeout 0 ./internal/soak -args $(SOAK)

# The tests with the newest version of each dependency.
newest:
	@.ci/prerequisites cgo swtpm strace node python shells
	@CGO_ENABLED=1 .ci/newest

# Known vulnerabilities in what is linked, by Go's database.
vulnerabilities:
	go run $(GOVULNCHECK) ./...
	@for m in $(NESTED); do (cd $$m && go run $(GOVULNCHECK) ./...) || exit 1; done
