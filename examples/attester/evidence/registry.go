// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/examples/internal/eat"
	"github.com/instancekey/instancekey/examples/internal/strictjson"
)

// A Registry knows which device each TPM is built into: the device maker's
// records. A TPM cannot tell that itself. It is not changed after it was made.
type Registry struct {
	devices        map[string]Device // by EK
	attestUnlisted bool
}

// A Device is what the registry knows of one device.
type Device struct {
	Listed  bool // false if the registry does not have it
	Blocked bool
	Model   Model
	// StorageRoot is the public area of the TPM's storage root key, to wrap
	// keys for it; nil if it is not known.
	StorageRoot *tpm2.TPMTPublic
}

// A Model describes devices of one kind, in the terms of RFC 9711.
type Model struct {
	// OEMID is who makes them: an IANA Private Enterprise Number (an integer),
	// or the 16 or 3 bytes of the other two kinds of identifier in base64url
	// (section 4.2.3).
	OEMID any
	// Hardware is the maker's name of the model, 1 to 32 bytes (section 4.2.4).
	Hardware string
	// Version is that of the hardware; "" if there is none (section 4.2.5).
	Version string
	// Uncertified says that the TPMs of these devices may come without a
	// certificate of their maker: the registry's word is enough.
	Uncertified bool
}

// registryFile is the form of a registry on disk.
type registryFile struct {
	// Models by names that are used in this file only.
	Models map[string]struct {
		OEMID    any    `json:"oemid"`
		Hardware string `json:"hwmodel"`
		Version  string `json:"hwversion"`
		// Certificate says whether a device's TPM has to have a certificate of its
		// maker: "required", also when left out, or "optional".
		Certificate string `json:"ek_certificate"`
	} `json:"models"`
	Devices []struct {
		EK    string `json:"ek"` // as in Endorsement.EK
		Model string `json:"model"`
		SRK   string `json:"srk"` // TPMT_PUBLIC of the storage root key, base64
	} `json:"devices"`
	// Blocked TPMs get no attestation, whether they are in devices or not.
	Blocked []string `json:"blocked"`
	// AttestUnlisted serves TPMs that are neither in devices nor blocked; the
	// attestation then says nothing of the device's model.
	AttestUnlisted bool `json:"attest_unlisted_devices"`
}

// LoadRegistry reads a registry from a JSON file. See PROTOCOL.md for its form.
func LoadRegistry(name string) (*Registry, error) { return load(name, ParseRegistry) }

// ParseRegistry reads a registry from the contents of such a file.
func ParseRegistry(text []byte) (*Registry, error) {
	var file registryFile
	lines, err := strictjson.Unmarshal(text, &file)
	if err != nil {
		return nil, fmt.Errorf("evidence: registry: %w", err)
	}
	registry, err := newRegistry(&file, lines)
	if err != nil {
		return nil, fmt.Errorf("evidence: registry: %w", err)
	}
	return registry, nil
}

// load reads a file whose errors are to name it.
func load[T any](name string, parse func(text []byte) (T, error)) (parsed T, err error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return parsed, fmt.Errorf("evidence: %w", err)
	}
	if parsed, err = parse(text); err != nil {
		return parsed, fmt.Errorf("%w (in %s)", err, name)
	}
	return parsed, nil
}

func newRegistry(file *registryFile, lines strictjson.Lines) (*Registry, error) {
	models := make(map[string]Model)
	for _, name := range slices.Sorted(maps.Keys(file.Models)) {
		m := file.Models[name]
		model := Model{OEMID: m.OEMID, Hardware: m.Hardware, Version: m.Version, Uncertified: m.Certificate == "optional"}
		if member, err := model.check(); err != nil {
			return nil, lines.Errorf("models."+name+"."+member, "model %q: %w", name, err)
		}
		if !slices.Contains([]string{"", "required", "optional"}, m.Certificate) {
			return nil, lines.Errorf("models."+name+".ek_certificate", "model %q: ek_certificate is %.40q, not required or optional", name, m.Certificate)
		}
		models[name] = model
	}
	r := &Registry{devices: make(map[string]Device), attestUnlisted: file.AttestUnlisted}
	first := make(map[string]int)
	for i, d := range file.Devices {
		model, ok := models[d.Model]
		before, twice := first[d.EK]
		at := fmt.Sprintf("devices[%d]", i)
		switch {
		case !isFingerprint(d.EK):
			return nil, lines.Errorf(at+".ek", "device: ek %.80q is not a SHA-256 digest in lower-case hexadecimal", d.EK)
		case twice:
			return nil, lines.Errorf(at, "device %s is there twice: also on line %d", d.EK, lines[fmt.Sprintf("devices[%d]", before)])
		case !ok:
			return nil, lines.Errorf(at+".model", "device %s: no model %q", d.EK, d.Model)
		}
		device := Device{Listed: true, Model: model}
		if d.SRK != "" {
			srk, err := parseStorageRoot(d.SRK)
			if err != nil {
				return nil, lines.Errorf(at+".srk", "device %s: srk: %w", d.EK, err)
			}
			device.StorageRoot = srk
		}
		r.devices[d.EK], first[d.EK] = device, i
	}
	for i, ek := range file.Blocked {
		if !isFingerprint(ek) {
			return nil, lines.Errorf(fmt.Sprintf("blocked[%d]", i), "blocked: %.80q is not a SHA-256 digest in lower-case hexadecimal", ek)
		}
		device := r.devices[ek]
		device.Blocked = true
		r.devices[ek] = device
	}
	return r, nil
}

func isFingerprint(text string) bool {
	raw, err := hex.DecodeString(text)
	return err == nil && len(raw) == 32 && hex.EncodeToString(raw) == text
}

// check returns the member that is wrong, and why.
func (m *Model) check() (member string, err error) {
	if err := eat.CheckOEMID(m.OEMID); err != nil {
		return "oemid", err
	}
	if id, ok := m.OEMID.(float64); ok {
		m.OEMID = uint32(id)
	}
	return "hwmodel", eat.CheckHardwareModel(m.Hardware)
}

// parseStorageRoot reads the public area of a storage key: only a TPM may be
// able to unwrap with it, and only keys.
func parseStorageRoot(text string) (*tpm2.TPMTPublic, error) {
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, err
	}
	area, err := parse[tpm2.TPMTPublic](raw)
	if err != nil {
		return nil, err
	}
	if a := area.ObjectAttributes; !a.FixedTPM || !a.FixedParent || !a.Restricted || !a.Decrypt || a.SignEncrypt {
		return nil, errors.New("is not a storage key that is fixed in a TPM")
	}
	if _, err := tpm2.ImportEncapsulationKey(area); err != nil {
		return nil, err
	}
	return area, nil
}

// vouchesFor reports whether an endorsement key is good because the registry says
// so: it has the device, of a model whose TPMs may come without a certificate.
func (r *Registry) vouchesFor(ek string) bool {
	if r == nil {
		return false
	}
	device := r.devices[ek]
	return device.Listed && device.Model.Uncertified
}

// admit returns what is known of the device with that endorsement key, if it may
// be attested. A nil Registry knows nothing and admits everybody.
func (r *Registry) admit(ek string) (Device, error) {
	if r == nil {
		return Device{}, nil
	}
	device := r.devices[ek]
	switch {
	case device.Blocked:
		return device, refuse(CodeUntrustedTPM, "TPM is blocked")
	case !device.Listed && !r.attestUnlisted:
		return device, refuse(CodeUntrustedTPM, "TPM is not in the registry")
	}
	return device, nil
}
