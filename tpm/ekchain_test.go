// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/tpm"
)

// TestEKChainInNV: a TPM that certifies its endorsement key itself has the links
// to its maker's root in NV indexes of their own, and nowhere else. All of them
// are sent, after the certificate of the endorsement key.
func TestEKChainInNV(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	key := create(t, r.Store, "key", tpm.KeyOptions{})
	leaf := issue(t, endorsementPublic(t, sim, tpm2.RSAEKTemplate))
	defineNV(t, sim, 0x01c00002, ownerNV, len(leaf), leaf)
	var links [][]byte
	for range 3 {
		links = append(links, issue(t, newECDSA(t)))
	}
	all := func(n int) []byte { return slices.Concat(links[:n]...) }
	filling, zeros := bytes.Repeat([]byte{0xff}, 40), make([]byte, 40)
	type index struct {
		handle  tpm2.TPMHandle
		content []byte
	}
	policyOnly := tpm2.TPMANV{OwnerWrite: true, PolicyRead: true, NoDA: true}
	cases := map[string]struct {
		indexes []index
		want    [][]byte
		policy  tpm2.TPMHandle // this index cannot be read
	}{
		"three in one index":             {[]index{{0x01c00100, all(3)[:2048]}, {0x01c00101, all(3)[2048:]}}, links[:3], 0},
		"one in each":                    {[]index{{0x01c00100, links[0]}, {0x01c00101, links[1]}}, links[:2], 0},
		"gaps, and the last index":       {[]index{{0x01c00120, links[0]}, {0x01c001ff, links[1]}}, links[:2], 0},
		"filled up":                      {[]index{{0x01c00100, slices.Concat(links[0], filling)}, {0x01c00101, slices.Concat(links[1], zeros)}}, links[:2], 0},
		"cut in an odd place":            {[]index{{0x01c00100, all(2)[:1000]}, {0x01c00101, all(2)[1000:]}}, links[:2], 0},
		"cut in a header":                {[]index{{0x01c00100, all(2)[:len(links[0])+2]}, {0x01c00101, all(2)[len(links[0])+2:]}}, links[:2], 0},
		"an index of filling":            {[]index{{0x01c00100, filling}, {0x01c00101, links[0]}}, links[:1], 0},
		"half a certificate before":      {[]index{{0x01c00100, links[1][:500]}, {0x01c00101, links[0]}}, links[:1], 0},
		"half a certificate at the end":  {[]index{{0x01c00100, links[0]}, {0x01c00101, links[1][:500]}}, links[:1], 0},
		"the leaf among them":            {[]index{{0x01c00100, leaf}, {0x01c00101, links[0]}}, links[:1], 0},
		"beyond the range":               {[]index{{0x01c000ff, links[0]}, {0x01c00200, links[1]}}, nil, 0},
		"one index that cannot be read":  {[]index{{0x01c00100, links[0]}, {0x01c00101, links[1]}}, links[1:2], 0x01c00100},
		"what Go would not take for one": {[]index{{0x01c00100, slices.Concat([]byte{0x30, 2, 5, 0}, links[0])}}, [][]byte{{0x30, 2, 5, 0}, links[0]}, 0},
		"none":                           {nil, nil, 0},
	}
	for name, tt := range cases {
		t.Run(name, func(t *testing.T) {
			for _, i := range tt.indexes {
				attributes := ownerNV
				if i.handle == tt.policy {
					attributes = policyOnly
				}
				defineNV(t, sim, i.handle, attributes, len(i.content), i.content)
				defer undefineNV(t, sim, tpm2.TPMRHOwner, i.handle)
			}
			got := enrol(t, key).EKCertificates
			if !slices.EqualFunc(got, append([][]byte{leaf}, tt.want...), bytes.Equal) {
				t.Errorf("%d certificates, want %d", len(got), 1+len(tt.want))
			}
		})
	}
	if len(cases) != 14 {
		t.Errorf("%d cases, want 14", len(cases))
	}

	t.Run("too many", func(t *testing.T) {
		var content []byte
		for i := range 20 {
			content = append(content, 0x30, 3, 2, 1, byte(i))
		}
		defineNV(t, sim, 0x01c00100, ownerNV, len(content), content)
		defer undefineNV(t, sim, tpm2.TPMRHOwner, 0x01c00100)
		if got := enrol(t, key).EKCertificates; len(got) != 16 || !bytes.Equal(got[15], []byte{0x30, 3, 2, 1, 14}) {
			t.Errorf("%d certificates, want 16", len(got))
		}
	})
}

// TestEKTemplateInNV: the maker of a TPM may have made the certified endorsement
// key by a template of his own, or by the usual one with a nonce, and has these
// in NV.
func TestEKTemplateInNV(t *testing.T) {
	sim := tpmtest.Simulator(t)
	rsa, ecc := tpm2.RSAEKTemplate, tpm2.ECCEKTemplate
	fill := func(start string, size int) []byte { return append([]byte(start), make([]byte, size-len(start))...) }
	rsaUnique := func(start string) tpm2.TPMTPublic {
		template := rsa
		template.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: fill(start, 256)})
		return template
	}
	eccUnique := func(start string) tpm2.TPMTPublic {
		template := ecc
		template.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
			X: tpm2.TPM2BECCParameter{Buffer: fill(start, 32)}, Y: tpm2.TPM2BECCParameter{Buffer: make([]byte, 32)},
		})
		return template
	}
	withAuth := ecc
	withAuth.ObjectAttributes.UserWithAuth = true
	signing := rsa
	signing.ObjectAttributes.Restricted = false
	high := tpm.EKTemplates()[0x01c00014]
	highOwn := high
	highOwn.ObjectAttributes.NoDA = true
	encode := func(template tpm2.TPMTPublic) []byte { return tpm2.Marshal(template) }

	cases := map[string]struct {
		certificate tpm2.TPMHandle
		beside      map[tpm2.TPMHandle][]byte
		made        tpm2.TPMTPublic
	}{
		"RSA, template":                 {0x01c00002, map[tpm2.TPMHandle][]byte{0x01c00004: encode(rsaUnique("maker"))}, rsaUnique("maker")},
		"RSA, nonce":                    {0x01c00002, map[tpm2.TPMHandle][]byte{0x01c00003: []byte("a nonce")}, rsaUnique("a nonce")},
		"RSA, both":                     {0x01c00002, map[tpm2.TPMHandle][]byte{0x01c00004: encode(rsaUnique("maker")), 0x01c00003: []byte("a nonce")}, rsaUnique("a nonce")},
		"ECC, template":                 {0x01c0000a, map[tpm2.TPMHandle][]byte{0x01c0000c: encode(eccUnique("maker"))}, eccUnique("maker")},
		"ECC, template, other use":      {0x01c0000a, map[tpm2.TPMHandle][]byte{0x01c0000c: encode(withAuth)}, withAuth},
		"ECC, nonce":                    {0x01c0000a, map[tpm2.TPMHandle][]byte{0x01c0000b: []byte("a nonce")}, eccUnique("a nonce")},
		"ECC, nonce that fills it":      {0x01c0000a, map[tpm2.TPMHandle][]byte{0x01c0000b: bytes.Repeat([]byte{1}, 32)}, eccUnique(string(bytes.Repeat([]byte{1}, 32)))},
		"high range, template":          {0x01c00014, map[tpm2.TPMHandle][]byte{0x01c00015: encode(highOwn)}, highOwn},
		"template of another kind":      {0x01c00002, map[tpm2.TPMHandle][]byte{0x01c00004: encode(ecc)}, rsa},
		"template of a key that signs":  {0x01c00002, map[tpm2.TPMHandle][]byte{0x01c00004: encode(signing)}, rsa},
		"template that is none":         {0x01c00002, map[tpm2.TPMHandle][]byte{0x01c00004: bytes.Repeat([]byte{0xff}, 50)}, rsa},
		"nonce that has no room":        {0x01c0000a, map[tpm2.TPMHandle][]byte{0x01c0000b: bytes.Repeat([]byte{1}, 33)}, ecc},
		"those of another certificate":  {0x01c0000a, map[tpm2.TPMHandle][]byte{0x01c00003: []byte("a nonce"), 0x01c00004: encode(rsaUnique("maker"))}, ecc},
		"template without certificates": {0, map[tpm2.TPMHandle][]byte{0x01c00004: encode(rsaUnique("maker"))}, rsaUnique("maker")},
	}
	for name, tt := range cases {
		t.Run(name, func(t *testing.T) {
			sim.Manufacture()
			r := newRig(t, sim)
			defer r.Close()
			key := create(t, r.Store, "key", tpm.KeyOptions{})
			public := endorsementPublic(t, sim, tt.made)
			if tt.certificate != 0 {
				der := issue(t, public)
				defineNV(t, sim, tt.certificate, ownerNV, len(der), der)
			}
			for index, content := range tt.beside {
				defineNV(t, sim, index, ownerNV, len(content), content)
			}
			enrolment := activateWith(t, key, tt.made)
			if want := spkiOf(t, public); !bytes.Equal(enrolment.EK, want) {
				t.Errorf("EK %x, want %x", enrolment.EK, want)
			}
		})
	}
	if len(cases) != 14 {
		t.Errorf("%d cases, want 14", len(cases))
	}
}
