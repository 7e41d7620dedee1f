// SPDX-License-Identifier: Apache-2.0

package evidence_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"math/big"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/instancekey/instancekey/examples/attester/evidence"
	"github.com/instancekey/instancekey/examples/internal/factory"
)

// Types of events.
const (
	separator = 0x4
	eventTag  = 0x6
	ipl       = 0xd
	variable  = 0x80000001
	efiAction = 0x80000007
	authority = 0x800000e0
)

// measured encodes UEFI_VARIABLE_DATA.
func measured(name string, data []byte) []byte {
	characters := utf16.Encode([]rune(name))
	encoded := make([]byte, 16)
	encoded = binary.LittleEndian.AppendUint64(encoded, uint64(len(characters)))
	encoded = binary.LittleEndian.AppendUint64(encoded, uint64(len(data)))
	for _, c := range characters {
		encoded = binary.LittleEndian.AppendUint16(encoded, c)
	}
	return append(encoded, data...)
}

// owned is EFI_SIGNATURE_DATA.
func owned(data []byte) []byte { return append(make([]byte, 16), data...) }

// listOf is an EFI_SIGNATURE_LIST.
func listOf(kind byte, data []byte) []byte {
	list := append([]byte{kind}, make([]byte, 15)...)
	list = binary.LittleEndian.AppendUint32(list, uint32(28+len(data)))
	list = binary.LittleEndian.AppendUint32(list, 0)
	list = binary.LittleEndian.AppendUint32(list, uint32(len(data)))
	return append(list, data...)
}

func signer(t testing.TB, name string) *x509.Certificate {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func digestOf(data []byte) []byte {
	digest := sha256.Sum256(data)
	return digest[:]
}

// valuesOf are the PCRs after the events.
func valuesOf(events []factory.Event, pcrs ...int) map[int][]byte {
	values := make(map[int][]byte)
	for _, pcr := range pcrs {
		values[pcr] = make([]byte, sha256.Size)
	}
	for _, e := range events {
		if value, quoted := values[e.PCR]; quoted {
			digest := e.Digest
			if digest == nil {
				digest = digestOf(e.Data)
			}
			values[e.PCR] = digestOf(append(slices.Clone(value), digest...))
		}
	}
	return values
}

// at7 is an event of PCR 7.
func at7(kind uint32, data []byte) factory.Event {
	return factory.Event{PCR: 7, Type: kind, Data: data}
}

// A boot is what PCR 7 has of one, in order.
type boot struct{ before, after []factory.Event }

// goodBoot has events 1 to 5 before the separator, which is event 6, and one after
// it.
func goodBoot(trusted []byte) boot {
	known := listOf(0xa1, owned(trusted))
	return boot{
		before: []factory.Event{
			at7(variable, measured("SecureBoot", []byte{1})), at7(variable, measured("PK", known)), at7(variable, measured("KEK", known)),
			at7(variable, measured("db", known)), at7(variable, measured("dbx", nil)),
		},
		after: []factory.Event{at7(authority, measured("db", owned(trusted)))},
	}
}

func (b boot) events() []factory.Event {
	return slices.Concat(b.before, []factory.Event{at7(separator, make([]byte, 4))}, b.after)
}

// TestSecureBoot: what real firmware logs beside what matters does no harm, and
// whatever could hide something is refused, with the event's number and in words.
func TestSecureBoot(t *testing.T) {
	trusted, stranger := signer(t, "vendor"), signer(t, "stranger")
	negative := bytes.Clone(trusted.Raw) // a serial number below zero, which Go does not parse
	i := bytes.Index(negative, []byte{2, 1, 1})
	negative[i+2] = 0xff
	if _, err := x509.ParseCertificate(negative); err == nil {
		t.Fatal("Go parses negative serial numbers again")
	}
	before := func(events ...factory.Event) func(*boot) {
		return func(b *boot) { b.before = append(b.before, events...) }
	}
	after := func(events ...factory.Event) func(*boot) {
		return func(b *boot) { b.after = append(b.after, events...) }
	}
	replace := func(i int, data []byte) func(*boot) { return func(b *boot) { b.before[i] = at7(variable, data) } }
	only := func(event factory.Event) func(*boot) { return func(b *boot) { b.after = []factory.Event{event} } }
	unproved := func(kind uint32, data, real []byte) factory.Event {
		return factory.Event{PCR: 7, Type: kind, Data: data, Digest: digestOf(real)}
	}
	known := listOf(0xa1, owned(trusted.Raw))
	shim := measured("Shim", append(bytes.Clone(trusted.Raw), 0)) // of before 2018: no owner, a byte too many
	shim = shim[:len(shim)-1]
	cases := map[string]struct {
		change func(*boot)
		want   string // "": on
		note   string
	}{
		"good": {func(*boot) {}, "", ""},
		"negative serial numbers": {func(b *boot) {
			for i := 1; i < 4; i++ {
				replace(i, measured([]string{"", "PK", "KEK", "db"}[i], listOf(0xa1, owned(negative))))(b)
			}
		}, "", ""},
		"dbx of digests of certificates": {replace(4, measured("dbx", listOf(0x92, owned(make([]byte, 48))))), "", ""},
		"dbx that nobody can read":       {replace(4, measured("dbx", []byte("not a list"))), "", ""},
		"db of digests of images":        {replace(3, measured("db", listOf(0x26, owned(make([]byte, 32))))), "", ""},
		"names with a NUL": {func(b *boot) {
			for i, v := range []string{"SecureBoot", "PK", "KEK", "db", "dbx"} {
				replace(i, measured(v+"\x00", [][]byte{{1}, known, known, known, nil}[i]))(b)
			}
		}, "", ""},
		"separator of ones": {func(b *boot) {
			b.before = append(b.before, at7(separator, []byte{0xff, 0xff, 0xff, 0xff}))
			b.after = nil
			b.before = append(b.before, goodBoot(trusted.Raw).after...)
		}, "second separator", ""},
		"other variables":                {before(at7(variable, measured("dbt", known)), at7(variable, measured("AuditMode", []byte{0}))), "", `the variable "dbt" says nothing`},
		"DMA protection off":             {before(at7(efiAction, []byte("DMA Protection Disabled"))), "", "DMA was disabled"},
		"DMA protection off, with a NUL": {before(at7(efiAction, []byte("DMA Protection Disabled\x00"))), "", "DMA was disabled"},
		"a tag":                          {before(at7(eventTag, []byte("vendor's tag"))), "", "event 6 of PCR 7 (EV_EVENT_TAG) was passed over"},
		"types of profile 1.06":          {before(at7(0x800000e3, []byte("SPDM policy")), at7(0x8000000a, []byte("blob 2"))), "", "event 7 of PCR 7 (EventType(0x8000000a)) was passed over"},
		"a vendor's type":                {before(at7(0x8401, []byte("anything"))), "", "event 6 of PCR 7 (EventType(0x00008401))"},
		"a tag after the separator":      {after(at7(ipl, []byte("a text"))), "", "event 8 of PCR 7 (EV_IPL)"},
		"SBAT level":                     {after(at7(authority, measured("SbatLevel", []byte("sbat,1,2022")))), "", ""},
		"owner's keys for modules":       {after(at7(authority, measured("MokListTrusted", []byte{1}))), "", "MokListTrusted"},
		"shim that verifies":             {after(at7(authority, measured("MokSBState", []byte{0}))), "", ""},
		"shim of before 2018":            {only(unproved(authority, append(bytes.Clone(shim), 0), shim)), "", ""},
		"a driver, before the separator": {before(at7(authority, measured("db", owned(trusted.Raw)))), "", ""},
		"many notes": {func(b *boot) {
			for range 30 {
				before(at7(eventTag, []byte("tag")))(b)
			}
		}, "", "and 20 more"},

		"off":                            {replace(0, measured("SecureBoot", []byte{0})), "is off", ""},
		"off, an empty variable":         {replace(0, measured("SecureBoot", nil)), "is off", ""},
		"off, and events after it":       {func(b *boot) { replace(0, measured("SecureBoot", nil))(b); after(at7(authority, []byte("x")))(b) }, "is off", ""},
		"neither on nor off":             {replace(0, measured("SecureBoot", []byte{2})), "event 1 of PCR 7 (EV_EFI_VARIABLE_DRIVER_CONFIG) has for SecureBoot the value 02", ""},
		"two bytes":                      {replace(0, measured("SecureBoot", []byte{1, 0})), "has for SecureBoot the value 0100", ""},
		"not mentioned":                  {replace(0, measured("Other", []byte{1})), "is not mentioned", ""},
		"no PK":                          {replace(1, measured("PK", nil)), "no keys in PK", ""},
		"no KEK":                         {replace(2, measured("KEK", nil)), "no keys in KEK", ""},
		"no db":                          {replace(3, measured("db", listOf(0xa1, nil))), "no keys in db", ""},
		"nothing was verified":           {func(b *boot) { b.after = nil }, "has verified nothing", ""},
		"no separator":                   {func(b *boot) { b.after[0].PCR = 8; b.before[4].Data = measured("dbx", []byte("x")) }, "has verified nothing", ""},
		"debugger":                       {before(at7(efiAction, []byte("UEFI Debug Mode"))), "event 6 of PCR 7 (EV_EFI_ACTION) says that a debugger was there", ""},
		"debugger, with a NUL":           {before(at7(efiAction, []byte("UEFI Debug Mode\x00"))), "debugger", ""},
		"debugger, by another name":      {before(at7(eventTag, []byte("UEFI DEBUG MODE"))), "debugger", ""},
		"an action that nobody knows":    {before(at7(efiAction, []byte("Secure Boot bypassed"))), `says something that is not understood: "Secure Boot bypassed"`, ""},
		"shim that does not verify":      {after(at7(authority, measured("MokSBState", []byte{1}))), "event 8 of PCR 7 (EV_EFI_VARIABLE_AUTHORITY) says that shim was told to verify nothing", ""},
		"and says it as configuration":   {after(at7(variable, measured("MokSBState", []byte{1}))), "shim was told to verify nothing", ""},
		"unknown authority":              {only(at7(authority, measured("db", owned(stranger.Raw)))), "unknown authority", ""},
		"and a known one":                {after(at7(authority, measured("MokList", owned(stranger.Raw)))), "event 8 of PCR 7 (EV_EFI_VARIABLE_AUTHORITY) let software pass for the unknown authority", ""},
		"unknown, before the separator":  {before(at7(authority, measured("db", owned(stranger.Raw)))), "event 6 of PCR 7", ""},
		"an image's own digest":          {after(at7(authority, measured("db", owned(make([]byte, 32))))), "let software pass by its own digest", ""},
		"nonsense let something pass":    {after(at7(authority, measured("db", []byte("x")))), "that is no certificate", ""},
		"an authority without a name":    {after(at7(authority, []byte("x"))), "cannot be read: its 1 bytes are not of its type", ""},
		"SecureBoot twice":               {before(at7(variable, measured("SecureBoot", []byte{1}))), "is the variable SecureBoot a second time", ""},
		"db twice":                       {before(at7(variable, measured("db", known))), "is the variable db a second time", ""},
		"configured after the separator": {after(at7(variable, measured("SecureBoot", []byte{1}))), "no certificate", ""},
		"two separators":                 {after(at7(separator, make([]byte, 4))), "is a second separator", ""},
		"a separator of an error":        {before(at7(separator, []byte{1, 0, 0, 0})), "the firmware failed: 0x00000001", ""},
		"data of another event":          {before(unproved(eventTag, []byte("harmless"), []byte("harmful"))), "event 6 of PCR 7 (EV_EVENT_TAG) is not what was measured", ""},
		"data of another, after":         {after(unproved(ipl, []byte("harmless"), []byte("harmful"))), "is not what was measured", ""},
		"no data":                        {after(unproved(authority, nil, []byte("harmful"))), "is not what was measured", ""},
		"a separator by another name":    {before(at7(eventTag, make([]byte, 4))), "event 6 of PCR 7 (EV_EVENT_TAG) is a separator by its data, and not by its type", ""},
		"a variable by another name":     {before(at7(eventTag, measured("db", known))), `is the variable "db" by its data, and not by its type`, ""},
		"another, after":                 {after(at7(ipl, measured("Other", []byte{1}))), `is the variable "Other" by its data`, ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			b := goodBoot(trusted.Raw)
			tc.change(&b)
			events := b.events()
			notes, err := evidence.SecureBoot(factory.Log(events), valuesOf(events, 7), digestOf(trusted.Raw))
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("%v, want %q", err, tc.want)
			}
			if !strings.Contains(strings.Join(notes, "\n"), tc.note) || tc.note == "" && tc.want == "" && len(notes) > 0 {
				t.Errorf("notes %q, want %q", notes, tc.note)
			}
		})
	}
	if len(cases) != 54 {
		t.Errorf("%d cases, want 54", len(cases))
	}
}

// TestSecureBootOtherPCRs: what is in other PCRs says nothing of Secure Boot.
func TestSecureBootOtherPCRs(t *testing.T) {
	trusted := signer(t, "vendor")
	events := append([]factory.Event{
		{PCR: 2, Type: 0x8401, Data: []byte("a vendor's")},
		{PCR: 2, Type: 0x80000004, Data: []byte("not an image load event")},
		{PCR: 0, Type: efiAction, Data: []byte("UEFI Debug Mode")},
	}, goodBoot(trusted.Raw).events()...)
	notes, err := evidence.SecureBoot(factory.Log(events), valuesOf(events, 0, 2, 7), digestOf(trusted.Raw))
	if err != nil || len(notes) > 0 {
		t.Errorf("%v, %q", err, notes)
	}
}

// TestSecureBootForged: an operating system that was started without Secure Boot, or
// for an unknown authority, can measure more, and call each event what it likes. It
// never looks like one that was started with it.
func TestSecureBootForged(t *testing.T) {
	trusted, stranger := signer(t, "vendor"), signer(t, "stranger")
	types := []uint32{0, 1, 2, 3, separator, 5, eventTag, 7, 8, 9, 0xa, 0xc, ipl, 0x12, 0x13, 0x8401, 0x80000000, variable, 0x80000002,
		0x80000003, 0x80000006, efiAction, 0x80000008, 0x8000000a, 0x80000010, authority, 0x800000e1, 0x800000e3, 0xffffffff}
	good := goodBoot(trusted.Raw).events()
	bad := map[string]func(*boot){
		"off":                      func(b *boot) { b.before[0].Data = measured("SecureBoot", []byte{0}) },
		"off, empty":               func(b *boot) { b.before[0].Data = measured("SecureBoot", nil) },
		"unknown authority":        func(b *boot) { b.after[0].Data = measured("db", owned(stranger.Raw)) },
		"an owner's authority":     func(b *boot) { b.after = append(b.after, at7(authority, measured("MokList", owned(stranger.Raw)))) },
		"an image's digest":        func(b *boot) { b.after = append(b.after, at7(authority, measured("MokList", owned(make([]byte, 32))))) },
		"a digest without owner":   func(b *boot) { b.after = append(b.after, at7(authority, measured("MokList", make([]byte, 32)))) },
		"an unknown driver":        func(b *boot) { b.before = append(b.before, at7(authority, measured("db", owned(stranger.Raw)))) },
		"shim verifies nothing":    func(b *boot) { b.after = append(b.after, at7(authority, measured("MokSBState", []byte{1}))) },
		"debugger":                 func(b *boot) { b.before = append(b.before, at7(efiAction, []byte("UEFI Debug Mode"))) },
		"nothing was let pass":     func(b *boot) { b.after = nil; b.before[0].Data = measured("SecureBoot", []byte{0}) },
		"an old shim's, of others": func(b *boot) { b.after = append(b.after, at7(authority, measured("Shim", stranger.Raw))) },
	}
	tried := 0
	for name, spoil := range bad {
		b := goodBoot(trusted.Raw)
		spoil(&b)
		real := b.events()
		for _, suffix := range [][]factory.Event{nil, good, good[5:], good[6:]} { // measured by the operating system
			events := slices.Concat(real, suffix)
			values := valuesOf(events, 7)
			try := func(forged []factory.Event) {
				tried++
				if _, err := evidence.SecureBoot(factory.Log(forged), values, digestOf(trusted.Raw)); err == nil {
					t.Errorf("%s, with %d events more, is Secure Boot", name, len(suffix))
				}
			}
			for i := range real {
				// A type cannot be EV_NO_ACTION: such an event is not replayed.
				for _, kind := range types {
					for _, data := range [][]byte{real[i].Data, nil, good[min(i, len(good)-1)].Data, append(bytes.Clone(real[i].Data), 0)} {
						forged := slices.Clone(events)
						forged[i] = factory.Event{PCR: 7, Type: kind, Data: data, Digest: digestOf(real[i].Data)}
						try(forged)
					}
				}
			}
			// All of the true ones by another name.
			for _, kind := range types {
				forged := slices.Clone(events)
				for i := range real {
					forged[i] = factory.Event{PCR: 7, Type: kind, Data: real[i].Data}
				}
				try(forged)
			}
		}
	}
	if tried < 30_000 {
		t.Errorf("only %d forgeries were tried", tried)
	}
	t.Logf("%d forgeries", tried)
}
