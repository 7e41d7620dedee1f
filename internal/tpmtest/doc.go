// SPDX-License-Identifier: Apache-2.0

// Package tpmtest gives tests a TPM: two kinds of real ones, and what can be put between them and the code under test.
// It is imported by _test files only.
//
// Everything here is a [Device]: something that can be dialled again and again. A Dial function for a configuration is
// the method value dev.Dial; [Dial] gives a test one connection that is closed at its end. Devices are stacked:
//
//	chip := tpmtest.Record(tpmtest.Simulator(t)) // what reaches the chip
//	rm := tpmtest.NewResourceManager(t, chip)    // /dev/tpmrm0
//	faults := tpmtest.Inject(t, rm)              // what goes wrong between it and us
//	calls := tpmtest.Record(faults)              // what we send
//	tpm := tpmtest.Dial(t, calls)
//
// # TPMs
//
//   - [Simulator] is the Microsoft reference TPM inside this process (cgo). There is one per process: a second test waits
//     until the first has ended, so tests that use it gain nothing from t.Parallel, and one test cannot have two.
//     Reset is a reboot, PowerOff leaves the TPM waiting for TPM2_Startup, Manufacture makes another TPM of it.
//   - [SWTPM] is swtpm as a child process, on a Unix or a TCP socket. It serves one connection at a time (a second one
//     is accepted and hangs until the first is closed), and answers TPM_RC_RETRY to the first use of a key with
//     dictionary-attack protection. Restart is a power cut, Manufacture another TPM at the same address.
//
// A TPM that cannot be had (no cgo, no swtpm) skips the test, or fails it when the environment variable CI is not empty.
//
// # Between
//
//   - [Record] counts and keeps what passes: commands by code, bytes, connections.
//   - [Inject] makes chosen commands, or opening the device, go wrong by a script of [Fault].
//   - [NewResourceManager] behaves like Linux's /dev/tpmrm0; each connection is an open file of it.
//   - [ServeUnix] and [ServeTCP] offer any Device to other processes on a socket, and [TCTI] points tpm2-tools and OpenSSL's
//     tpm2 provider at it.
//
// # Checks and helpers
//
//   - [NoLeaks] fails a test that left an object or a session in the TPM.
//   - [ExtendPCR] measures something, as a boot does.
package tpmtest
