// SPDX-License-Identifier: Apache-2.0

package report

// meanings are what claims and JOSE header parameters are for, in the order in which
// they are shown. Of a claim that is not here nothing is said.
var meanings = []struct{ name, is string }{
	// JOSE header (RFC 7515, section 4.1).
	{"typ", "which kind of JWT this is, so that none is taken for another"},
	{"alg", "how it is signed"},
	{"kid", "which of the signer's keys has signed it"},
	{"x5c", "the signer's certificates"},
	{"jwk", "the public key that it is signed with"},

	// Claims of JWTs, of the draft and of DPoP (RFC 7519, 7800, 9449).
	{"iss", "who has made it"},
	{"sub", "the client_id that it is about"},
	{"aud", "whom it is for: anybody else refuses it"},
	{"cnf", "the Client Instance Key: only who can sign with it may use this attestation"},
	{"challenge", "the receiver's own fresh value: it shows that this was not made earlier"},
	{"nonce", "the receiver's own fresh value: it shows that this was not made earlier"},
	{"jti", "its name: a second one of the same name is a replay"},
	{"iat", "when it was made, in seconds since 1970"},
	{"nbf", "from when on it is good, in seconds since 1970"},
	{"exp", "until when it is good, in seconds since 1970"},
	{"htm", "the method of the request that it is for"},
	{"htu", "the URL of the request that it is for"},
	{"ath", "the hash of the access token that it goes with"},
	{"req_hash", "the hash of a message that it vouches for"},
	{"evidence", "what the TPM says of key, device and boot state"},
	{"status", "where to ask whether it was revoked"},

	// About the device (RFC 9711, draft-ietf-rats-ear).
	{"eat_profile", "how the claims about the device are to be read"},
	{"oemid", "who has made the device"},
	{"hwmodel", "its model, in base64url"},
	{"hwversion", "the version of its hardware"},
	{"swname", "the software that it has booted"},
	{"swversion", "the version of that software"},
	{"oemboot", "whether it has booted its maker's software (Secure Boot)"},
	{"measres", "what was measured, and how that compares with what it should be"},
	{"submods", "the attester's verdict on the platform"},
	{"tpm_endorsement", "who vouches for the TPM"},
	{"ueid", "the device's identifier, shortened here"},
}

// meaning returns what a claim is for and its place in the order.
func meaning(name string) (is string, at int) {
	for i, m := range meanings {
		if m.name == name {
			return m.is, i
		}
	}
	return "", len(meanings)
}
