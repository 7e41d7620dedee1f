// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/instancekey/instancekey/examples/attester/evidence"
	"github.com/instancekey/instancekey/examples/internal/factory"
	"github.com/instancekey/instancekey/examples/internal/watch"
)

// TestCheck: attesterd -check reads everything, says what is wrong and where, makes
// nothing, and its exit status says whether something is.
func TestCheck(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "attesterd")
	if out, err := exec.Command("go", "build", "-ldflags=-s -w", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	files, _ := operatorFiles(t)
	notMade := filepath.Join(t.TempDir(), "key.json")
	for name, tc := range map[string]struct {
		change func(*evidenceFiles)
		want   string // "": all is well
	}{
		"good":                {func(*evidenceFiles) {}, ""},
		"a finding":           {func(f *evidenceFiles) { writeIn(t, f.roots, "bad.pem", "x") }, ""},
		"registry":            {func(f *evidenceFiles) { f.registry = write(t, "r.json", []byte("{\n\"devicez\": []}")) }, `line 2: devicez: unknown field "devicez" (in `},
		"reference":           {func(f *evidenceFiles) { f.reference = write(t, "r.json", []byte("{\"policy\": \"p\",\n\"pcrs\": []}")) }, "line 2: pcrs: "},
		"list":                {func(f *evidenceFiles) { f.links = t.TempDir(); writeIn(t, f.links, "x.CRL", "x") }, "x.CRL: not a revocation list"},
		"CA":                  {func(f *evidenceFiles) { f.ca = write(t, "ca.pem", []byte("x")) }, "ca.pem"},
		"links without roots": {func(f *evidenceFiles) { *f = evidenceFiles{links: f.roots} }, "need -tpm-roots"},
	} {
		t.Run(name, func(t *testing.T) {
			files := files
			tc.change(&files)
			args := []string{"-check", "-signing-key", notMade}
			for flag, value := range map[string]string{"-tpm-roots": files.roots, "-tpm-links": files.links, "-registry": files.registry, "-reference": files.reference, "-ak-ca": files.ca} {
				if value != "" {
					args = append(args, flag, value)
				}
			}
			cmd := exec.Command(binary, args...)
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			err := cmd.Run()
			if tc.want == "" && (err != nil || stdout.String() != "the files are good\n") || tc.want != "" && (err == nil || !strings.Contains(stderr.String(), tc.want)) {
				t.Errorf("%v, %s%s, want %q", err, &stdout, &stderr, tc.want)
			}
			if finding := strings.Contains(stderr.String(), "bad.pem: is of no use"); finding != (name == "a finding") {
				t.Errorf("said %s", &stderr)
			}
			os.Remove(filepath.Join(files.roots, "bad.pem"))
		})
	}
	for _, file := range []string{notMade, files.ca} {
		if _, err := os.Stat(file); err == nil {
			t.Errorf("-check has made %s", file)
		}
	}
}

func writeIn(t *testing.T, dir, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// lockedBuffer is a log that two goroutines share.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// take returns what was written since the last time.
func (b *lockedBuffer) take() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.text.Reset()
	return b.text.String()
}

// TestFollow: a changed file is in force within a minute; of one that is wrong that of
// before stays in force, and that is said, until it is mended. The others take effect.
func TestFollow(t *testing.T) {
	files, ek := operatorFiles(t)
	good, err := os.ReadFile(files.registry)
	if err != nil {
		t.Fatal(err)
	}
	with := func(blocked string) string {
		var registry map[string]any
		if err := json.Unmarshal(good, &registry); err != nil {
			t.Fatal(err)
		}
		registry["blocked"] = []string{blocked}
		text, err := json.Marshal(registry)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	other := sha256.Sum256([]byte("another EK"))
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var said lockedBuffer
		log := slog.New(slog.NewTextHandler(&said, nil))
		digest := watch.Digest(files.watched())
		verifier, known, err := files.load(log)
		if err != nil {
			t.Fatal(err)
		}
		go files.follow(ctx, digest, verifier, known, log)
		for i, step := range []struct {
			file, content string
			welcome       bool
			pcrs          int
			said          string
		}{
			{files.registry, with(ek), false, 1, "are in force"},
			{files.registry, with(hex.EncodeToString(other[:])), true, 1, "are in force"},
			{files.registry, "{", true, 1, "cannot be used: what was read from it before stays in force"},
			{files.reference, `{"policy": "p", "pcrs": [0, 7]}`, true, 2, "registry"},  // beside a registry that is wrong
			{files.reference, `{"policy": "p", "pcrs": []}`, true, 2, "pcrs is empty"}, // both are
			{files.registry, with(ek), false, 2, "the other files about devices are in force"},
			{files.reference, `{"policy": "p", "pcrs": [0]}`, false, 1, "have changed, and are in force"},
			{filepath.Join(files.roots, "list.crl"), "x", false, 1, "list.crl: not a revocation list"},
			{files.registry, with(hex.EncodeToString(other[:])), true, 1, "list.crl: not a revocation list"}, // beside a list that is wrong
			{files.registry, with(ek), false, 1, "the other files"},
			{files.reference, `{"policy": "p", "pcrs": [0, 7]}`, false, 2, "the other files"},
			{files.registry, string(good), true, 2, "list.crl: not a revocation list"},
			{filepath.Join(files.roots, "list.crl"), "", true, 2, "are in force"}, // removed
			{files.registry, with(ek), false, 2, "are in force"},
			{files.registry, "{", false, 2, "cannot be used"}, // who was kept out, still is
			{files.registry, string(good), true, 2, "are in force"},
		} {
			said.take()
			if step.content == "" {
				err = os.Remove(step.file)
			} else {
				err = os.WriteFile(step.file, []byte(step.content), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if _, _, err := verifier.Device(ek); (err == nil) != step.welcome {
				t.Errorf("step %d: %v", i, err)
			}
			if n := len(verifier.PCRs()); n != step.pcrs {
				t.Errorf("step %d: %d PCRs, want %d", i, n, step.pcrs)
			}
			if text := said.take(); !strings.Contains(text, step.said) {
				t.Errorf("step %d: said %s, want %q", i, text, step.said)
			}
		}
	})
}

// TestFollowMakers: while a revocation list is wrong, the TPMs of the makers of before
// are trusted on, and no others.
func TestFollowMakers(t *testing.T) {
	files, ek := operatorFiles(t)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		maker, err := factory.NewTPMMaker(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		certificate, err := maker.Certify(&key.PublicKey, nil)
		if err != nil {
			t.Fatal(err)
		}
		digest := sha256.Sum256(spki)
		registry, err := os.ReadFile(files.registry)
		if err != nil {
			t.Fatal(err)
		}
		writeIn(t, filepath.Dir(files.registry), filepath.Base(files.registry), strings.ReplaceAll(string(registry), ek, hex.EncodeToString(digest[:])))
		root := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: maker.Root.Raw}))
		watched := watch.Digest(files.watched())
		verifier, known, err := files.load(quiet)
		if err != nil {
			t.Fatal(err)
		}
		go files.follow(ctx, watched, verifier, known, quiet)
		for i, step := range []struct {
			name, content string
			trusted       bool
		}{
			{"list.crl", "x", false},
			{"maker.pem", root, false}, // beside a list that is wrong
			{"list.crl", "", true},     // removed
			{"list.crl", "x", true},
			{"maker.pem", "", true}, // removed, beside a list that is wrong
			{"list.crl", "", false},
		} {
			if step.content == "" {
				if err := os.Remove(filepath.Join(files.roots, step.name)); err != nil {
					t.Fatal(err)
				}
			} else {
				writeIn(t, files.roots, step.name, step.content)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			_, err := verifier.Enrol(evidence.EnrolmentRequest{EK: spki, EKCertificates: [][]byte{certificate}})
			var refused *evidence.Error
			if !errors.As(err, &refused) || (refused.Code == evidence.CodeInvalidAK) != step.trusted {
				t.Errorf("step %d: %v, trusted: %t", i, err, step.trusted)
			}
		}
	})
}
