// SPDX-License-Identifier: Apache-2.0

package attester_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/examples/internal/factory"
	"github.com/instancekey/instancekey/internal/tpmtest"
)

// TestRejectPlatform: what is said of the boot.
func TestRejectPlatform(t *testing.T) { onEachMachine(t, testRejectPlatform) }

func testRejectPlatform(t *testing.T, w *machine) {
	chain := w.enrol()
	k := w.instanceKey()
	defer func() { k.flush() }()

	// quote replaces the quote by another one of the same TPM.
	quote := func(a *attempt, bank tpm2.TPMIAlgHash, pcrs []int, qualifying []byte) {
		ak := a.d.ak()
		defer ak.flush()
		a.proof.quotes = []object{a.d.quote(ak, bank, pcrs, qualifying)}
	}
	field := func(name string, value any) func(*attempt) {
		return func(a *attempt) { a.proof.quotes[0][name] = value }
	}
	values := func(a *attempt) object { return a.proof.quotes[0]["pcrValues"].(object) }
	// relog replaces the log by one of other events.
	relog := func(change func([]factory.Event) []factory.Event) func(*attempt) {
		return func(a *attempt) { a.proof.log = factory.Log(change(a.d.firmware.Events())) }
	}
	evil := sha256.Sum256([]byte("evil loader"))

	w.run(t, k, chain, []refusal{
		{"none", "platform_evidence_required", "no quote", func(a *attempt) { a.proof.omit = true }},
		{"no quote", "platform_evidence_required", "no quote", func(a *attempt) { a.proof.quotes = nil }},
		{"two quotes", "invalid_evidence", "2 quotes", func(a *attempt) { a.proof.quotes = append(a.proof.quotes, a.proof.quotes[0]) }},
		{"no log", "platform_evidence_required", "no tcgEventLog", func(a *attempt) { a.proof.log = nil }},
		{"stale nonce", "invalid_evidence", "quote: is not bound", func(a *attempt) {
			quote(a, tpm2.TPMAlgSHA256, a.pcrs, bindingOf("an older challenge", k.thumbprint()))
		}},
		{"nonce of another key", "invalid_evidence", "quote: is not bound", func(a *attempt) {
			quote(a, tpm2.TPMAlgSHA256, a.pcrs, bindingOf(a.challenge, "another key"))
		}},
		{"certInfo as quote", "invalid_evidence", "quote: is another kind", func(a *attempt) {
			a.proof.quotes[0]["rawQuote"], a.proof.quotes[0]["rawSignature"] = a.proof.statement["certInfo"], a.proof.statement["sig"]
		}},
		{"fewer PCRs", "invalid_evidence", "over the PCRs [0 7]", func(a *attempt) { quote(a, tpm2.TPMAlgSHA256, []int{0, 7}, a.binding) }},
		{"other PCRs", "invalid_evidence", "over the PCRs [0 4 8]", func(a *attempt) { quote(a, tpm2.TPMAlgSHA256, []int{0, 4, 8}, a.binding) }},
		{"more PCRs", "invalid_evidence", "over the PCRs [0 4 7 23]", func(a *attempt) { quote(a, tpm2.TPMAlgSHA256, []int{0, 4, 7, 23}, a.binding) }},
		{"no PCRs", "invalid_evidence", "over the PCRs []", func(a *attempt) { quote(a, tpm2.TPMAlgSHA256, nil, a.binding) }},
		{"SHA-1 bank", "invalid_evidence", "bank 0x4", func(a *attempt) { quote(a, tpm2.TPMAlgSHA1, a.pcrs, a.binding) }},
		{"SHA-1 bank that says SHA-256", "invalid_evidence", "SHA-256 bank alone", func(a *attempt) {
			quote(a, tpm2.TPMAlgSHA1, a.pcrs, a.binding)
			a.proof.quotes[0]["hashAlgo"] = 11
		}},
		{"hashAlgo is missing", "invalid_evidence", "bank 0x0", func(a *attempt) { delete(a.proof.quotes[0], "hashAlgo") }},
		{"PCR value edited", "invalid_evidence", "not over these pcrValues", func(a *attempt) { values(a)["4"].([]byte)[0] ^= 1 }},
		{"PCR values swapped", "invalid_evidence", "not over these pcrValues", func(a *attempt) {
			values(a)["0"], values(a)["4"] = values(a)["4"], values(a)["0"]
		}},
		{"PCR value missing", "invalid_evidence", "2 pcrValues", func(a *attempt) { delete(values(a), "4") }},
		{"PCR value too many", "invalid_evidence", "4 pcrValues", func(a *attempt) { values(a)["5"] = make([]byte, 32) }},
		{"PCR number spelt otherwise", "invalid_evidence", "no SHA-256 value for PCR 4", func(a *attempt) {
			values(a)["04"] = values(a)["4"]
			delete(values(a), "4")
		}},
		{"PCR value of 20 bytes", "invalid_evidence", "no SHA-256 value for PCR 4", func(a *attempt) { values(a)["4"] = make([]byte, 20) }},
		{"quote bit flip", "invalid_evidence", "quote: signature of the AK does not verify", func(a *attempt) {
			a.proof.quotes[0]["rawQuote"].([]byte)[30] ^= 1
		}},
		{"quote signed by another AK", "invalid_evidence", "quote: signature of the AK does not verify", func(a *attempt) {
			other := a.d.load(tpm2.TPMRHEndorsement, a.d.secondAK())
			defer other.flush()
			a.proof.quotes = []object{a.d.quote(other, tpm2.TPMAlgSHA256, a.pcrs, a.binding)}
		}},
		{"rawSignature empty", "invalid_evidence", "no TPMT_SIGNATURE", field("rawSignature", []byte{})},
		{"rawQuote null", "invalid_evidence", "quote: signature", field("rawQuote", nil)},

		{"log cut", "invalid_evidence", "event log", func(a *attempt) { a.proof.log = a.proof.log[:len(a.proof.log)-10] }},
		{"log without its last event", "invalid_evidence", "event log", relog(func(e []factory.Event) []factory.Event { return e[:len(e)-1] })},
		{"log without a PCR", "invalid_evidence", "does not say what was measured into PCR 7", relog(func(e []factory.Event) []factory.Event {
			var kept []factory.Event
			for _, event := range e {
				if event.PCR != 7 {
					kept = append(kept, event)
				}
			}
			return kept
		})},
		{"log without events", "invalid_evidence", "does not say", relog(func([]factory.Event) []factory.Event { return nil })},
		{"log with another digest", "invalid_evidence", "event log", relog(func(e []factory.Event) []factory.Event {
			e[len(e)-1].Digest = evil[:]
			return e
		})},
		{"log with an event more", "invalid_evidence", "event log", relog(func(e []factory.Event) []factory.Event {
			return append(e, factory.Event{PCR: 4, Type: 13, Data: []byte("never measured")})
		})},
		{"log with two events swapped", "invalid_evidence", "event log", relog(func(e []factory.Event) []factory.Event {
			e[1], e[2] = e[2], e[1]
			return e
		})},
		{"log that is none", "invalid_evidence", "event log", func(a *attempt) { a.proof.log = []byte("not a log, but long enough to be read as one record") }},
		{"log with SHA-1 alone", "invalid_evidence", "no SHA-256 digests", func(a *attempt) {
			a.proof.log = make([]byte, 32) // one event of TPM 1.2's format
		}},
		{"log of 513 kB", "invalid_evidence", "more than 524288 bytes", func(a *attempt) {
			a.proof.log = append(a.proof.log, bytes.Repeat([]byte{0}, 513<<10)...)
		}},

		// From here on the TPM itself has moved.
		{"PCR extended after boot", "invalid_evidence", "event log", func(a *attempt) {
			if err := factory.Measure(a.d.tpm, factory.Event{PCR: 4, Data: []byte("kexec")}); err != nil {
				a.t.Fatal(err)
			}
			quote(a, tpm2.TPMAlgSHA256, a.pcrs, a.binding)
			// The attempts after this one shall be good again.
			k.flush()
			w.reboot()
			k = a.instanceKey()
		}},
		{"reboot between certInfo and quote", "invalid_evidence", "another boot", func(a *attempt) {
			k.flush()
			w.reboot()
			k = a.instanceKey()
			a.signer, a.jwk = k, k.Public()
			quote(a, tpm2.TPMAlgSHA256, a.pcrs, a.binding)
		}},
	}, 36)
}

// TestEventData: what the log says of an event is believed if it is what was
// measured. Everything else about an event is the operating system's word.
func TestEventData(t *testing.T) {
	w := newWorld(t, tpmtest.Dial(t, tpmtest.Simulator(t)), nil)
	chain := w.enrol()
	k := w.instanceKey()
	defer k.flush()

	edited := func(pcr int, change func(*factory.Event)) []byte {
		events := w.d.firmware.Events()
		for i := range events {
			if events[i].PCR == pcr {
				digest := sha256.Sum256(events[i].Data)
				if events[i].Digest == nil {
					events[i].Digest = digest[:]
				}
				change(&events[i])
				break
			}
		}
		return factory.Log(events)
	}

	// The version of the firmware: the log still replays, the string is dropped.
	a := w.attempt(k, chain)
	a.proof.log = edited(0, func(e *factory.Event) { e.Data = bytes.ReplaceAll(e.Data, []byte("2"), []byte("Z")) })
	w.wantAttestation(w.send(a.request()))
	if got := w.lastRecord()["firmware_version"]; got != "" {
		t.Errorf("believed the firmware version %v", got)
	}
	if strings.Contains(w.log.String(), "Z.0") {
		t.Error("the log repeats the lie")
	}

	// Secure Boot: it is off as far as anybody can tell.
	for name, change := range map[string]func(*factory.Event){
		"data edited": func(e *factory.Event) { e.Data[len(e.Data)-1] = 0 },
		"data gone":   func(e *factory.Event) { e.Data = nil },
		"type edited": func(e *factory.Event) { e.Type = 0x80000007 },
	} {
		a = w.attempt(k, chain)
		a.proof.log = edited(7, change)
		w.wantRefusal(w.send(a.request()), 403, "policy_violation", "Secure Boot")
		if t.Failed() {
			t.Fatal(name)
		}
	}
}

// TestLaterEvents: software that was started can measure the digest of any
// release, but only after its own.
func TestLaterEvents(t *testing.T) {
	w := newWorld(t, tpmtest.Dial(t, tpmtest.Simulator(t)), nil)
	sim := w.d
	good := w.firmware(firmwareV2, true).Events()
	chain := w.enrol()
	k := w.instanceKey()
	defer k.flush()

	// The good loader starts something that measures more: still the good loader.
	more := factory.Event{PCR: 4, Type: 13, Data: []byte("a kernel")}
	if err := factory.Measure(sim.tpm, more); err != nil {
		t.Fatal(err)
	}
	w.d.log = factory.Log(append(good, more))
	w.wantAttestation(w.send(w.attempt(k, chain).request()))
}

// TestLateGoodDigest: an unknown loader that measures the digest of a good one
// stays unknown.
func TestLateGoodDigest(t *testing.T) {
	w := newWorld(t, tpmtest.Dial(t, tpmtest.Simulator(t)), func(w *world) {})
	chain := w.enrol()
	k := w.instanceKey()
	defer k.flush()
	loader := sha256.Sum256([]byte("loader of Gateway firmware 3.0"))
	separator := sha256.Sum256(make([]byte, 4))
	w.reference["software"].([]object)[0]["first_events"] = object{"4": []string{hex.EncodeToString(separator[:]), hex.EncodeToString(loader[:])}}
	w.start()
	w.wantRefusal(w.send(w.attempt(k, chain).request()), 403, "policy_violation", "match no reference values")

	late := factory.Event{PCR: 4, Type: 0x80000003, Data: []byte("x"), Digest: loader[:]}
	if err := factory.Measure(w.d.tpm, late); err != nil {
		t.Fatal(err)
	}
	w.d.log = factory.Log(append(w.d.firmware.Events(), late))
	w.wantRefusal(w.send(w.attempt(k, chain).request()), 403, "policy_violation", "match no reference values")
}
