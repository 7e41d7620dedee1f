// SPDX-License-Identifier: Apache-2.0

package attester_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/examples/attester"
	"github.com/instancekey/instancekey/internal/tpmtest"
)

// A flooder has no TPM. He has a key in software, and knows what a device has
// sent: its EK certificate, its AK, and its evidence.
type flooder struct {
	w         *world
	key       *ecdsa.PrivateKey
	enrolment string // the device's first request
	evidence  any
	want      map[string]int // answers, by their error
}

func (w *world) newFlooder(evidence any) *flooder {
	w.t.Helper()
	return &flooder{
		w: w, key: newKey(w.t, elliptic.P256()),
		enrolment: string(encodeJSON(w.t, w.d.enrolment())), evidence: evidence, want: map[string]int{},
	}
}

// request makes the i-th hostile request, and those that it takes to make it.
func (f *flooder) request(i int) {
	w := f.w
	post := func(path, text string) object {
		return body(w.t, w.post(path, text))
	}
	count := func(answer object) {
		code, _ := answer["error"].(string)
		f.want[code]++
	}
	attest := func(evidence any) {
		r := w.request()
		r.key, r.jwk = f.key, jose.JSONWebKey{Key: &f.key.PublicKey}
		r.claims["evidence"] = evidence
		count(body(w.t, w.send(r)))
	}
	switch i % 10 {
	case 0: // a challenge of his own, and no evidence
		attest(nil)
	case 1: // and the device's evidence
		attest(f.evidence)
	case 2: // an enrolment that nobody will answer
		count(post("/tpm/attest", f.enrolment))
	case 3: // and one that is answered by who cannot
		answer := post("/tpm/attest", f.enrolment)
		count(post("/tpm/secret", string(encodeJSON(w.t, object{"session": answer["session"], "secret": make([]byte, 32)}))))
	default: // a session of his own making, which costs him the least
		count(post("/tpm/secret", `{"session": "`+strconv.Itoa(i)+`", "secret": "AAAA"}`))
	}
}

// TestFlood: whoever has no TPM keeps nobody out, however often he asks: neither a
// device that has enrolled, nor one that is new, nor the one whose EK certificate
// he has. The limits are small enough for this flood to fill them if it could.
func TestFlood(t *testing.T) {
	const requests = 10_000
	sim := tpmtest.Simulator(t)
	w := newWorld(t, tpmtest.Dial(t, sim), func(w *world) {
		w.registry["attest_unlisted_devices"] = true
	})
	w.server.Shrink(1000) // 500 attestations, 100 enrolments
	chain := w.enrol()
	k := w.instanceKey()
	stolen := w.attempt(k, chain).request().claims["evidence"]
	session, credential, secret := w.begin() // before the flood, answered after it

	f := w.newFlooder(stolen)
	for i := range requests {
		f.request(i)
	}
	want := map[string]int{
		"platform_evidence_required": requests / 10, "invalid_evidence": requests / 10,
		"": requests / 10, "activation_failed": requests / 10, "invalid_session": requests / 10 * 6,
	}
	for code, n := range want {
		if f.want[code] != n {
			t.Errorf("%q: %d answers, want %d; all: %v", code, f.want[code], n, f.want)
		}
	}

	w.wantAttestation(w.send(w.attempt(k, chain).request()))
	answer, err := w.d.activate(w.d.akKey, credential, secret)
	if err != nil {
		t.Fatal(err)
	}
	if r := w.postJSON("/tpm/secret", object{"session": session, "secret": answer}); r.Code != http.StatusOK {
		t.Errorf("the enrolment that was under way: %d %s", r.Code, r.Body)
	}
	w.wantAttestation(w.send(w.attempt(k, w.enrol()).request()))
	k.flush()

	sim.Manufacture()
	w.d.boot(w.d.firmware)
	if w.d.fingerprint() == w.ek {
		t.Fatal("the new TPM is the old one")
	}
	k = w.instanceKey()
	defer k.flush()
	w.wantAttestation(w.send(w.attempt(k, w.enrol()).request()))
}

// TestManyAttestations: attestations within one lifetime of a challenge are
// limited by memory alone. A hundredth of it is filled.
func TestManyAttestations(t *testing.T) {
	f := newFixture(t, func(cfg *attester.Config) { cfg.Logger = slog.New(slog.DiscardHandler) })
	f.server.Shrink(100)
	const capacity = 5_000
	first := f.request().compact(t)
	for i := range capacity {
		r := first
		if i > 0 {
			r = f.request().compact(t)
		}
		if w := f.post("/client-attestation", `{"request":"`+r+`"}`); w.Code != http.StatusOK {
			t.Fatalf("attestation %d: %d %s", i, w.Code, w.Body)
		}
	}
	w := f.send(f.request())
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("over capacity: %d %s", w.Code, w.Body)
	}
	w = f.post("/client-attestation", `{"request":"`+first+`"}`)
	if w.Code != http.StatusBadRequest || body(t, w)["error"] != "invalid_challenge" {
		t.Errorf("the first one again: %d %s", w.Code, w.Body)
	}
	f.now = f.now.Add(5 * time.Minute)
	f.wantAttestation(f.send(f.request()))
}

// TestMemoryOfChallenges: 300,000 attestations within one lifetime of a challenge
// fit, in 64 MB.
func TestMemoryOfChallenges(t *testing.T) {
	f := newFixture(t, nil)
	before := heap()
	for i := range 300_000 {
		if err := f.server.Spend(strconv.Itoa(i)); err != nil {
			t.Fatalf("attestation %d: %v", i, err)
		}
	}
	if took := heap() - before; took > 64<<20 {
		t.Errorf("%d MB", took>>20)
	} else {
		t.Logf("%d MB", took>>20)
	}
	runtime.KeepAlive(f)
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// BenchmarkFlood makes hostile requests and, after each 500, lets a good device
// attest. For a million of them: -bench Flood -benchtime 1000000x. Latency is the
// attester's alone, without the TPM's time; what the flooder's own work costs is in
// the time of each request.
func BenchmarkFlood(b *testing.B) {
	sim := tpmtest.Simulator(b)
	w := newWorld(b, tpmtest.Dial(b, sim), nil)
	chain := w.enrol()
	k := w.instanceKey()
	defer k.flush()
	stolen := w.attempt(k, chain).request().claims["evidence"]
	verifier := w.verifier()
	w.configure(func(cfg *attester.Config) {
		cfg.Evidence, cfg.Logger = verifier, slog.New(slog.NewTextHandler(io.Discard, nil))
	})
	f := w.newFlooder(stolen)
	var latencies []time.Duration
	good := func() {
		b.StopTimer()
		request := w.attempt(k, chain).request().compact(b)
		start := time.Now()
		answer := w.post("/client-attestation", `{"request":"`+request+`"}`)
		latencies = append(latencies, time.Since(start))
		w.wantAttestation(answer)
		b.StartTimer()
	}
	before := heap()
	b.ResetTimer()
	for i := range b.N {
		f.request(i)
		if i%500 == 0 {
			good()
		}
	}
	good()
	b.StopTimer()
	slices.Sort(latencies)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
	b.ReportMetric(float64(heap()-before)/(1<<20), "MB-kept")
	b.ReportMetric(float64(latencies[len(latencies)/2].Microseconds()), "good-µs-median")
	b.ReportMetric(float64(latencies[len(latencies)*99/100].Microseconds()), "good-µs-p99")
	runtime.KeepAlive(w)
}
