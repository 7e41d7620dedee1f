// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// A memoryCache is a client.Cache. If fail is set, all calls fail with it.
type memoryCache struct {
	fail error

	mu      sync.Mutex
	entries map[string][]byte
	gets    int
	puts    int
}

func newMemoryCache() *memoryCache { return &memoryCache{entries: make(map[string][]byte)} }

func (m *memoryCache) Get(_ context.Context, key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gets++
	if m.fail != nil {
		return nil, m.fail
	}
	data, ok := m.entries[key]
	if !ok {
		return nil, client.ErrCacheMiss
	}
	return data, nil
}

func (m *memoryCache) Put(_ context.Context, key string, data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.puts++
	if m.fail != nil {
		return m.fail
	}
	m.entries[key] = slices.Clone(data)
	return nil
}

func (m *memoryCache) Delete(_ context.Context, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	delete(m.entries, key)
	return nil
}

func (m *memoryCache) size() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.entries)
}

func (m *memoryCache) keys() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.entries))
}

// replace puts data under the only key there is.
func (m *memoryCache) replace(data string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key := range m.entries {
		m.entries[key] = []byte(data)
	}
}

func TestCacheMakesRestartWarm(t *testing.T) {
	for name, cache := range map[string]client.Cache{
		"memory": newMemoryCache(),
		"folder": client.DirCache(filepath.Join(t.TempDir(), "a", "b")),
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, transporttest.Policy{})
			for run := range 3 {
				c := r.client(t, func(cfg *client.Config) { cfg.Cache = cache })
				if err := grant(t.Context(), c); err != nil {
					t.Fatal(err)
				}
				if n := len(r.attester.calls()); n != 1 {
					t.Errorf("run %d: attester asked %d times in all, want 1", run, n)
				}
				c.Close()
			}
			if n := len(slices.Compact(sent(r))); n != 1 {
				t.Errorf("%d attestations sent, want 1", n)
			}
		})
	}
}

func TestCacheEntryIsCheckedC9(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, good string) string{
		"torn":               func(_ *testing.T, good string) string { return good[:len(good)/2] },
		"empty":              func(*testing.T, string) string { return "" },
		"garbage":            func(*testing.T, string) string { return "\x00\xff" },
		"of another key":     func(t *testing.T, _ string) string { return forge(t, newKey(t, "ES256"), testNow, forgery{}) },
		"40 kB":              func(_ *testing.T, good string) string { return good + strings.Repeat("x", 40<<10) },
		"newline at the end": func(_ *testing.T, good string) string { return good + "\n" },
		"expired":            func(_ *testing.T, good string) string { return good },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, transporttest.Policy{})
			cache := newMemoryCache()
			withCache := func(cfg *client.Config) { cfg.Cache = cache }
			if err := grant(t.Context(), r.client(t, withCache)); err != nil {
				t.Fatal(err)
			}
			good := sent(r)[0]
			cache.replace(spoil(t, good))
			if name == "expired" {
				r.clock.advance(time.Hour)
			}
			if err := grant(t.Context(), r.client(t, withCache)); err != nil {
				t.Fatalf("with a bad entry: %v", err)
			}
			if n := len(r.attester.calls()); n != 2 || cache.puts != 2 {
				t.Errorf("attester asked %d times, %d entries put, want 2 and 2", n, cache.puts)
			}
			if err := grant(t.Context(), r.client(t, withCache)); err != nil {
				t.Fatal(err)
			}
			if n := len(r.attester.calls()); n != 2 {
				t.Errorf("attester asked %d times: the bad entry was not replaced", n)
			}
		})
	}
}

func TestCacheEntryOfAnotherClient(t *testing.T) {
	// One key, one cache, two clients: entries are confused at worst, not used.
	r, other := newRig(t, transporttest.Policy{}), transporttest.New(t, transporttest.Config{ClientID: "other", Policy: transporttest.Policy{NoRandomRefusals: true}})
	key, cache := newKey(t, "ES256"), newMemoryCache()
	if err := cache.Put(t.Context(), "x", nil); err != nil {
		t.Fatal(err)
	}
	with := func(cfg *client.Config) { cfg.Key, cfg.Store, cfg.Cache = key, nil, cache }
	if err := grant(t.Context(), r.client(t, with)); err != nil {
		t.Fatal(err)
	}
	cache.replace(other.Attester.Attest(key.Public()))
	if err := grant(t.Context(), r.client(t, with)); err != nil {
		t.Fatal(err)
	}
	if n := len(r.attester.calls()); n != 2 {
		t.Errorf("attester asked %d times, want 2", n)
	}
}

func TestCacheThatFailsIsNotFatal(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	cache := newMemoryCache()
	cache.fail = errors.New("disk full")
	c := r.client(t, func(cfg *client.Config) { cfg.Cache = cache })
	for range 3 {
		if err := grant(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(r.attester.calls()); n != 1 || cache.gets != 1 || cache.puts != 1 {
		t.Errorf("attester asked %d times, cache %d gets and %d puts, want one of each", n, cache.gets, cache.puts)
	}
}

func TestCacheKeys(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	cache := newMemoryCache()
	for range 20 { // thumbprints may begin with - or _
		key := newKey(t, "ES256")
		if err := grant(t.Context(), r.client(t, func(cfg *client.Config) { cfg.Key, cfg.Store, cfg.Cache = key, nil, cache })); err != nil {
			t.Fatal(err)
		}
	}
	if n := cache.size(); n != 20 {
		t.Errorf("%d entries for 20 keys", n)
	}
	for _, key := range cache.keys() {
		if err := keystore.CheckName(key); err != nil {
			t.Error(err)
		}
	}
}

func TestCacheKeepsWhatServerRejectedOut(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	cache := newMemoryCache()
	with := func(cfg *client.Config) { cfg.Cache = cache }
	if err := grant(t.Context(), r.client(t, with)); err != nil {
		t.Fatal(err)
	}
	r.Deny(sent(r)[0])
	// A restart finds the denied one, sends it once and replaces it.
	for range 2 {
		if err := grant(t.Context(), r.client(t, with)); err != nil {
			t.Fatal(err)
		}
	}
	if got := sent(r); len(got) != 4 || got[1] != got[0] || got[2] == got[0] || got[3] != got[2] {
		t.Errorf("%d requests, want the denied one sent again once", len(got))
	}
}
