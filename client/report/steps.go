// SPDX-License-Identifier: Apache-2.0

package report

// What the page says of each step, in the order of Figure 1.
var steps = []struct {
	id       StepID
	badge    string
	title    string
	from, to Party
	idle     string // why it may not have run
}{
	{CreateKey, "a", "The Client Instance creates its Client Instance Key", Instance, Instance,
		"The run ended before there was a key."},
	{SendEvidence, "b", "It sends evidence about key, device and boot state to the Client Attester", Instance, Attester,
		"The attester was not asked: the attestation was at hand or provisioned, or the run ended before."},
	{VerifyEvidence, "c", "The Client Attester verifies the evidence against its policy", Attester, Attester,
		"The attester was not asked."},
	{Attestation, "d", "and answers with a Client Attestation JWT", Attester, Instance,
		"No attestation came in this run."},
	{Provisioned, "f", "or: the Client Attester provisioned the attestation beforehand", Attester, Instance,
		"The attestation was not provisioned: steps (b), (c) and (d) are the other way to get one."},
	{Metadata, "·", "It reads the metadata of the Authorization Server, or of a resource", Instance, Server,
		"The metadata was not asked for: it was given, or the run ended before."},
	{AskChallenge, "1", "The Client Instance asks the Authorization Server for a challenge", Instance, Server,
		"This step is optional. The server has no challenge endpoint, a challenge was at hand, or the run ended before."},
	{Challenge, "2", "The Authorization Server answers with a challenge", Server, Instance,
		"This step is optional. No challenge was asked for, or none came."},
	{MakeProof, "3", "The Client Instance makes the PoP JWT with its key, over the challenge", Instance, Instance,
		"The run ended before a proof was needed."},
	{SendProof, "4", "It sends the Client Attestation JWT and the PoP JWT", Instance, Server,
		"The run ended before anything was sent with client authentication."},
	{Answer, "5", "The Authorization Server verifies both, and the device against its own policy, and answers", Server, Instance,
		"The server has not answered in this run."},
	{ResourceCall, "→", "The Client Instance calls a protected resource", Instance, Resource,
		"No resource was called."},
}

// names of the parties.
var names = map[Party]string{
	Instance: "Client Instance",
	Attester: "Client Attester",
	Server:   "Authorization Server",
	Resource: "Protected Resource",
}

// place of a step in steps; -1: there is none of that name.
func indexOf(id StepID) int {
	for i, s := range steps {
		if s.id == id {
			return i
		}
	}
	return -1
}

// label is a step as texts name it.
func label(id StepID) string {
	switch id {
	case Metadata:
		return "metadata"
	case ResourceCall:
		return "resource"
	}
	return "(" + string(id) + ")"
}
